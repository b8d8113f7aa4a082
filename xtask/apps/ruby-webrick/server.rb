require "webrick"

server = WEBrick::HTTPServer.new(Port: ENV.fetch("PORT"), BindAddress: "127.0.0.1")
server.mount_proc("/") { |_request, response| response.body = "This is the first release" }
trap("TERM") { server.shutdown }
server.start
