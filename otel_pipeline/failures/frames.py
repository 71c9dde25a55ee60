"""The frames of a stack trace that are the program's own, in a form that outlives its versions: no line numbers."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.limits import VERDICTS_KEPT

PYTHON: Final = 'File "'
NODE: Final = re2.compile(
    r"(?m)^\s*at (?:async )?(?:([^\s(][^\n(]*?) \()?"
    r"((?:file://|node:|webpack:|[A-Za-z]:)?[^\s():]+):\d+(?::\d+)?\)?$"
)
JAVA: Final = re2.compile(
    r"(?m)^\s*at (?:[\w.@-]+/)*([\w.$]+)\.([\w$<>]+)"
    r"\((?:[\w$-]+\.(?:java|kt|scala|groovy)|Native Method|Unknown Source)(?::\d+)?\)"
)
CALLED: Final = re2.compile(r"(?m)^\s*at ([^\n]+)")
GO: Final = re2.compile(r"(?m)^([\w./*()\-]+)\([^\n]*\)\n\t([^\s:]+\.go):\d+")
FOREIGN: Final = re2.compile(
    r"site-packages|dist-packages|[\\/]lib[\\/]python\d"
    r"|[\\/]Lib[\\/](asyncio|concurrent|json|urllib|http|multiprocessing|threading)"
    r"|^<|node_modules|^node:|internal/|/usr/local/go/|/go/pkg/mod/|/vendor/"
    r"|^(java|javax|jakarta|jdk|sun|kotlin|scala|org\.(springframework|apache|hibernate|postgresql|eclipse|junit)"
    r"|com\.(sun|fasterxml|zaxxer)|io\.(netty|lettuce|grpc|micrometer)|reactor)\."
)
NUMBERED: Final = re2.compile(r"\$\d+")
"""Lambdas and classes without a name: the compiler counts them."""
VERSIONED: Final = re2.compile(r"@[\w.-]+|[-.](?:[0-9a-f]{6,}|v?\d+(?:\.\d+)+)")


def own(stack: str, most: int) -> list[str]:
    """The innermost frames of the program itself, the innermost first, as file:function."""
    if PYTHON in stack:
        frames = [_python(line) for line in stack.split("\n") if PYTHON in line]
        return [f"{_file(path)}:{name}" for path, name in reversed(frames) if _ours(path)][:most]
    if ".go:" in stack:
        go = [(path, name.rsplit("/", 1)[-1]) for name, path in GO.findall(stack)]
        return [f"{_file(path)}:{name}" for path, name in go if _ours(path)][:most]
    if "at " not in stack:
        return []
    if java := JAVA.findall(stack):
        return [NUMBERED.sub("", f"{kind}:{name}") for kind, name in java if _ours(kind)][:most]
    return [f"{_file(path)}:{name.strip()}" for name, path in NODE.findall(stack) if _ours(path)][:most]


def innermost(stack: str) -> str:
    """Where it was raised, in whoever's code: a path, or the line that names the function."""
    begin = stack.rfind(PYTHON)
    if begin >= 0:
        return stack[begin + len(PYTHON) :].partition('"')[0]
    found = CALLED.search(stack)
    return found[1] if found else ""


def _python(line: str) -> tuple[str, str]:
    """Path and function of a line such as `File "/app/a.py", line 3, in run`."""
    path, _, rest = line.partition(PYTHON)[2].partition('"')
    return path, rest.partition(", in ")[2].strip()


@lru_cache(maxsize=VERDICTS_KEPT)
def _ours(path: str) -> bool:
    return FOREIGN.search(path) is None


@lru_cache(maxsize=VERDICTS_KEPT)
def _file(path: str) -> str:
    """The last two parts of a path, without version and extension: installations differ in the rest."""
    parts = VERSIONED.sub("", path.replace("\\", "/")).rsplit("/", 2)[-2:]
    return "/".join(parts).rsplit(".", 1)[0]
