"""Which host a set of names means. Samples and spans of one host often carry different ones: an id here, a name there.

Names come with the best first. Two sets mean one host if they share a name that is the best one of either. A lesser
name that both have is not enough: many containers are called `localhost`. A name that leads to several hosts finds
only the one whose best it is.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from otel_pipeline.limits import GPU_HOST_NAMES_MAX

T = TypeVar("T")


class Hosts(Generic[T]):
    """Hosts by their names, in the order in which they were last touched."""

    def __init__(self) -> None:
        self._made = 0
        self._hosts: dict[int, T] = {}
        self._best: dict[int, str] = {}
        self._names: dict[int, set[str]] = {}
        self._keys: dict[str, set[int]] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def find(self, names: tuple[str, ...]) -> T | None:
        """The host that these names mean."""
        key = self._key(names)
        return None if key is None else self._hosts[key]

    def touch(self, names: tuple[str, ...]) -> T | None:
        """The same for what this host itself sent: it takes on the names, and is the last to be forgotten."""
        key = self._key(names)
        if key is None:
            return None
        host = self._hosts.pop(key)
        self._hosts[key] = host
        if self._best[key] in names:
            self._best[key] = names[0]
        self._name(key, names)
        return host

    def put(self, names: tuple[str, ...], host: T) -> None:
        """A new host, after `touch` found none."""
        key = self._made = self._made + 1
        self._hosts[key], self._best[key], self._names[key] = host, names[0], set()
        self._name(key, names)

    def forget_oldest(self) -> T:
        """Remove the host that was touched least recently."""
        return self._forget(next(iter(self._hosts)))

    def forget(self, host: T) -> None:
        """Remove this host."""
        for key in [key for key, each in self._hosts.items() if each is host]:
            self._forget(key)

    def _key(self, names: tuple[str, ...]) -> int | None:
        for name in names[:GPU_HOST_NAMES_MAX]:
            keys = self._keys.get(name, set())
            found = [key for key in keys if self._best[key] == name] or (list(keys) if name == names[0] else [])
            if len(found) == 1:
                return found[0]
        return None

    def _name(self, key: int, names: tuple[str, ...]) -> None:
        own = self._names[key]
        for name in names[:GPU_HOST_NAMES_MAX]:
            if name not in own and len(own) < GPU_HOST_NAMES_MAX:
                own.add(name)
                self._keys.setdefault(name, set()).add(key)

    def _forget(self, key: int) -> T:
        for name in self._names.pop(key):
            self._keys[name].discard(key)
            if not self._keys[name]:
                del self._keys[name]
        del self._best[key]
        return self._hosts.pop(key)
