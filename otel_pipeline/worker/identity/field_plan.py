"""`OTEL_PIPELINE_JOB_FIELDS`, read: which paths are tried for which field in which queue. identity.py has its form."""

from __future__ import annotations

import fnmatch
import functools
import re
from dataclasses import dataclass, field
from typing import Any, Final

from otel_pipeline.worker.identity.job_fields import BY_NAME, FIELDS
from otel_pipeline.worker.reading import documents
from otel_pipeline.worker.reading.paths import Path, PathError, parse
from otel_pipeline.worker.settings import PREFIX

VARIABLE: Final = PREFIX + "JOB_FIELDS"
DIMENSION_PREFIX: Final = "attribute."
FIELDS_MAX: Final = 64
"""Fields that are configured for one queue: each is read from each message."""
PATHS_MAX: Final = 16
"""Paths of one field."""
QUEUES_MAX: Final = 64
SIDE_KEYS_MAX: Final = 8
"""Keys that are read before one job starts."""

_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)+")
_DIMENSION: Final = re.compile(r"[A-Za-z_][\w.-]{0,127}")
_ALLOWED: Final = (
    f"one of {', '.join(each.name for each in FIELDS)}, attribute.<name>, or an attribute's name with a dot"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is configured for the queues of one glob, or for all."""

    paths: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """By attribute. Empty: this field is switched off."""
    sides: tuple[str, ...] = ()
    """Templates of Redis keys."""


@dataclass(frozen=True, slots=True)
class Plans:
    general: Plan
    queues: tuple[tuple[str, Plan], ...] = ()

    def of(self, queue: str | None) -> tuple[Plan, ...]:
        """Those that apply to a queue, the first goes first."""
        if queue is None or not self.queues:
            return (self.general,)
        return (*(plan for glob, plan in self.queues if fnmatch.fnmatchcase(queue, glob)), self.general)


@functools.lru_cache(maxsize=8)
def plans(text: str) -> Plans:
    """What a configuration says. Its mistakes are logged, once."""
    document = documents.read(text, VARIABLE)
    if document is None:
        return Plans(Plan())
    if not isinstance(document, dict):
        documents.fault(VARIABLE, "the value", "it is a mapping of fields to paths")
        return Plans(Plan())
    queues = document.get("queues")
    if queues is not None and not isinstance(queues, dict):
        documents.fault(VARIABLE, "queues", "it is a mapping of globs to mappings of fields to paths")
        queues = None
    inner = [
        (str(glob), _plan(each, f"queues.{glob}."))
        for _, (glob, each) in zip(range(QUEUES_MAX), (queues or {}).items(), strict=False)
    ]
    return Plans(_plan({name: each for name, each in document.items() if name != "queues"}, ""), tuple(inner))


def _plan(document: Any, where: str) -> Plan:
    if not isinstance(document, dict):
        documents.fault(VARIABLE, where.rstrip("."), "it is a mapping of fields to paths")
        return Plan()
    paths: dict[str, tuple[Path, ...]] = {}
    sides: list[str] = []
    for name, value in _entries(document):
        if name == "side":
            sides += [each for each in _texts(value) if each]
            continue
        attribute = attribute_of(name)
        if attribute is None:
            documents.fault(VARIABLE, f"{where}{name}", f"no such field: allowed is {_ALLOWED}")
        elif len(paths) >= FIELDS_MAX:
            documents.fault(VARIABLE, f"{where}{name}", f"more than {FIELDS_MAX} fields")
        else:
            read = _paths(value, f"{where}{name}")
            if read is not None:
                paths[attribute] = read
                sides += [each.side for each in read if each.side]
    if len(set(sides)) > SIDE_KEYS_MAX:
        documents.fault(VARIABLE, f"{where}side", f"more than {SIDE_KEYS_MAX} keys: the others are not read")
    return Plan(paths, tuple(dict.fromkeys(sides))[:SIDE_KEYS_MAX])


def attribute_of(name: str) -> str | None:
    """The attribute that a name in the configuration stands for."""
    if name in BY_NAME:
        return BY_NAME[name].attribute
    if name.startswith(DIMENSION_PREFIX):
        rest = name.removeprefix(DIMENSION_PREFIX)
        return rest if _DIMENSION.fullmatch(rest) else None
    return name if _ATTRIBUTE.fullmatch(name) and len(name) <= 128 else None


def _entries(document: dict[Any, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        if name == "attribute" and isinstance(value, dict):
            found += [(f"{DIMENSION_PREFIX}{inner}", each) for inner, each in value.items()]
        else:
            found.append((str(name), value))
    return found


def _texts(value: Any) -> list[str]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def _paths(value: Any, where: str) -> tuple[Path, ...] | None:
    """The paths of a field, the readable ones; None if there are some and none is readable."""
    given = [] if value is None or value is False else value if isinstance(value, list) else [value]
    read: list[Path] = []
    for each in given[:PATHS_MAX]:
        if not isinstance(each, str):
            documents.fault(VARIABLE, where, f"{str(each)[:80]!r} is no path: a path is a text")
            continue
        try:
            read += parse(each)
        except PathError as error:
            documents.fault(VARIABLE, where, error)
    return tuple(read) if read or not given else None
