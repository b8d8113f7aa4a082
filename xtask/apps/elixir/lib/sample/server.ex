defmodule Sample.Server do
  @moduledoc "Answers every connection with one line."

  use Task, restart: :permanent

  def start_link(port), do: Task.start_link(__MODULE__, :listen, [port])

  def listen(port) do
    {:ok, socket} =
      :gen_tcp.listen(port, [:binary, packet: :http_bin, active: false, reuseaddr: true, ip: {127, 0, 0, 1}])

    accept(socket)
  end

  defp accept(socket) do
    {:ok, client} = :gen_tcp.accept(socket)
    pid = spawn(fn -> receive do: (:go -> answer(client)) end)
    :ok = :gen_tcp.controlling_process(client, pid)
    send(pid, :go)
    accept(socket)
  end

  defp answer(client) do
    case :gen_tcp.recv(client, 0) do
      {:ok, :http_eoh} ->
        body = "This is the first release"
        head = "HTTP/1.1 200 OK\r\nContent-Length: #{byte_size(body)}\r\nConnection: close\r\n\r\n"
        :gen_tcp.send(client, head <> body)
        :gen_tcp.close(client)

      {:ok, _line} ->
        answer(client)

      {:error, _reason} ->
        :gen_tcp.close(client)
    end
  end
end
