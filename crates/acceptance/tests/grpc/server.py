"""A server of gRPC without generated code: its messages are bytes."""

import os
import threading
from concurrent import futures

import grpc

RELEASE = "one"
taken_back = []


def get(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such order: 100% \u00e9")
    if request == b"taken back":
        return str(len(taken_back)).encode()
    if request == b"slow":
        threading.Event().wait(5)
    if len(request) > 1000:
        return request
    context.set_trailing_metadata((("x-sum", "7"),))
    return f"{RELEASE} {request.decode()}".encode()


def listed(request, context):
    for number in range(5):
        yield f"{RELEASE} {number}".encode()


def summed(requests, context):
    return f"{RELEASE} {b''.join(requests).decode()}".encode()


def talk(requests, context):
    for request in requests:
        yield f"{RELEASE} {request.decode()}".encode()


def watch(request, context):
    over = threading.Event()

    def end():
        taken_back.append(1)
        over.set()

    context.add_callback(end)
    yield b"watching"
    over.wait()


orders = grpc.method_handlers_generic_handler(
    "shop.Orders",
    {
        "Get": grpc.unary_unary_rpc_method_handler(get),
        "List": grpc.unary_stream_rpc_method_handler(listed),
        "Sum": grpc.stream_unary_rpc_method_handler(summed),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    },
)
health = grpc.method_handlers_generic_handler(
    "grpc.health.v1.Health",
    {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")},
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((orders, health))
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
