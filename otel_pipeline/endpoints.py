"""Addresses as an operator writes them: host:port."""

from __future__ import annotations


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 hosts lose their brackets, an empty host stays empty (every interface)."""
    if endpoint.startswith("unix:"):
        raise ValueError("unix sockets are not supported; allowed: host:port")
    if "://" in endpoint:
        raise ValueError(f"{endpoint!r} has a scheme; allowed: host:port without one")
    host, colon, port = endpoint.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{endpoint!r} is not host:port; an IPv6 host stands in brackets, such as [::1]:4317")
    if not colon or any(c.isspace() or c in "/@[]" for c in host):
        raise ValueError(f"{endpoint!r} is not host:port, such as 127.0.0.1:4317")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{endpoint!r} has no valid port; allowed: 0 to 65535")
    return host, int(port)
