"""OTLP gRPC as bytes in and bytes out, for the sink, the pass-through and the load generator."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

SIGNALS = ("trace", "metrics", "logs")
EXPORT_TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SERVER_THREADS = 16  # As many as the load generator keeps requests in flight by default.
STOP_GRACE_S = 2.0

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # rotel merges up to 8192 spans: 3.8 MB and more.
    ("grpc.max_send_message_length", -1),
]
_SERVER_OPTIONS = [*_OPTIONS, ("grpc.so_reuseport", 0)]
_CHANNEL_OPTIONS = [
    *_OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),  # One channel is one connection.
    ("grpc.initial_reconnect_backoff_ms", 50),  # A killed gateway is back within a second; default is 1 s, growing.
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
]

# What grpcio calls a ServicerContext; grpcio carries no types of its own.
Context = Any
Export = Callable[[bytes, Context], bytes]


def channel_options() -> list[tuple[str, int]]:
    return list(_CHANNEL_OPTIONS)


def raw_server(exports: dict[str, Export], listen: str) -> tuple[Any, int]:
    """A server that calls exports[signal] with undecoded requests, and its port; not started yet."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=SERVER_THREADS), options=_SERVER_OPTIONS)
    for name, export in exports.items():
        handler: Any = grpc.unary_unary_rpc_method_handler(export)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service(name), {"Export": handler}),))
    return server, server.add_insecure_port(listen)


def service(signal_name: str) -> str:
    return f"opentelemetry.proto.collector.{signal_name}.v1.{signal_name.capitalize()}Service"


def announce(**ports: int) -> None:
    """Tell the parent process, in one JSON line, where this process listens."""
    print(json.dumps(ports), flush=True)


def wait_for_sigterm() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
