"""Who samples which GPU, told to the other processes of this machine without any file: one sampler for each is enough.

A claim is a socket with a name in Linux' abstract namespace, which ends with its process whatever becomes of it, and
which is seen within one network namespace: that of the host, a container or a pod. Agents announce what they sample.
Workers sample a GPU only if no agent does, and no other worker. An agent in a network namespace of its own is not
noticed: there workers have to be told, with OTEL_PIPELINE_GPU_SAMPLING=off.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import Final

PREFIX: Final = "\0otel_pipeline/gpu"
CLAIMS_MAX: Final = 64
"""GPUs of one machine; each claim is a file descriptor."""


class Claims:
    """The GPUs that this process samples. For one thread, but for `release`."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._sockets: dict[str, socket.socket] = {}

    def announce(self, uuid: str) -> bool:
        """As an agent: it samples what it was told to. Always True."""
        self._bind(uuid)
        return True

    def take(self, uuid: str) -> bool:
        """As a worker: whether this GPU is ours. What an agent has begun to sample is given up."""
        if _is_claimed("agent", uuid):
            self._give_up(uuid)
            return False
        return self._bind(uuid)

    def release(self) -> None:
        """Give up all, at the end and in a forked child: there the claims are the parent's."""
        for uuid in list(self._sockets):
            self._give_up(uuid)

    def _bind(self, uuid: str) -> bool:
        if uuid in self._sockets or not sys.platform.startswith("linux"):
            return True
        if len(self._sockets) >= CLAIMS_MAX:
            return False
        made: socket.socket | None = None
        try:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.bind(_name(self._role, uuid))
        except OSError as error:
            if made is not None:
                made.close()
            return error.errno != errno.EADDRINUSE  # where sockets are forbidden nobody can claim anything
        self._sockets[uuid] = made
        return True

    def _give_up(self, uuid: str) -> None:
        held = self._sockets.pop(uuid, None)
        if held is not None:
            held.close()


def _is_claimed(role: str, uuid: str) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        asking.connect(_name(role, uuid))
        return True
    return False


def _name(role: str, uuid: str) -> str:
    return f"{PREFIX}/{role}/{uuid}"[:100]
