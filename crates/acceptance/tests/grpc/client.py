"""A client of gRPC: what it is to do, where, and a root to trust where it is by TLS."""

import queue
import re
import sys
import time

import grpc

what, where = sys.argv[1], sys.argv[2]
name = "rpc.localhost"
if len(sys.argv) > 3:
    with open(sys.argv[3]) as file:
        roots = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", file.read(), re.S)
    credentials = grpc.ssl_channel_credentials("".join(roots).encode())
    options = [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    channel = grpc.secure_channel(where, credentials, options)
else:
    channel = grpc.insecure_channel(where)
get = channel.unary_unary("/shop.Orders/Get")
talk = channel.stream_stream("/shop.Orders/Talk")


def say(text):
    print(text, flush=True)


def text(messages):
    return ", ".join(message.decode() for message in messages)


def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except grpc.RpcError as error:
        return error
    raise SystemExit("it was not refused")


def every():
    answer, call = get.with_call(b"order", timeout=60)
    trailers = dict(call.trailing_metadata())
    say(f"unary: {answer.decode()}, trailer {trailers['x-sum']}")
    error = refused(get, b"fail", timeout=60)
    say(f"failed: {error.code().name} {error.details()}")
    say(f"server streaming: {text(channel.unary_stream('/shop.Orders/List')(b'', timeout=60))}")
    letters = (letter.encode() for letter in "abc")
    say(f"client streaming: {channel.stream_unary('/shop.Orders/Sum')(letters, timeout=60).decode()}")
    waiting = queue.Queue()
    heard = []
    both = talk(iter(waiting.get, None), timeout=60)
    for word in "xyz":
        # The next one is sent when the one before has been answered.
        waiting.put(word.encode())
        heard.append(next(both))
    waiting.put(None)
    assert not list(both)
    say(f"both: {text(heard)}")
    say(f"large: {len(get(b'x' * 4_000_000, timeout=60))}")
    say(f"deadline: {refused(get, b'slow', timeout=0.5).code().name}")
    say(f"unknown: {refused(channel.unary_unary('/shop.Orders/None'), b'', timeout=60).code().name}")
    watching = channel.unary_stream("/shop.Orders/Watch")(b"", timeout=60)
    assert next(watching) == b"watching"
    watching.cancel()
    while get(b"taken back", timeout=60) == b"0":
        time.sleep(0.05)
    say(f"taken back: the app has seen {get(b'taken back', timeout=60).decode()}")


def through():
    waiting = queue.Queue()
    both = talk(iter(waiting.get, None))
    waiting.put(b"before")
    say(next(both).decode())
    sys.stdin.readline()
    waiting.put(b"after")
    say(next(both).decode())
    waiting.put(None)
    assert not list(both)
    say(f"ended: {both.code().name}")
    say(get(b"next", timeout=60).decode())


def one():
    error = refused(get, b"order", timeout=60)
    say(f"{error.code().name} {error.details()}")


{"every": every, "through": through, "one": one}[what]()
