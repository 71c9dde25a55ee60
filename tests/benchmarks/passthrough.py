"""The floor: a grpcio server that forwards raw bytes with a grpcio client and acknowledges after the forward succeeded.

Nothing is read, stored or retried; no gateway on grpcio can be cheaper.
"""

from __future__ import annotations

import argparse
from typing import Any

import grpc

from tests.benchmarks.raw_grpc import (
    SIGNALS,
    STOP_GRACE_S,
    Context,
    Export,
    announce,
    channel_options,
    raw_server,
    service,
    wait_for_sigterm,
)

FORWARD_TIMEOUT_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port, port 0 takes a free one")
    parser.add_argument("--forward", required=True, help="host:port of the sink")
    arguments = parser.parse_args()
    with grpc.insecure_channel(arguments.forward, options=channel_options()) as channel:
        server, port = raw_server({name: _forwarder(channel, name) for name in SIGNALS}, arguments.listen)
        server.start()
        announce(grpc=port)
        wait_for_sigterm()
        server.stop(STOP_GRACE_S).wait()


def _forwarder(channel: grpc.Channel, signal_name: str) -> Export:
    call: Any = channel.unary_unary(f"/{service(signal_name)}/Export")

    def export(body: bytes, context: Context) -> bytes:
        try:
            response: bytes = call(body, timeout=FORWARD_TIMEOUT_S)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
            raise  # abort() raises; this line is for the reader and the type checker.
        return response

    return export


if __name__ == "__main__":
    main()
