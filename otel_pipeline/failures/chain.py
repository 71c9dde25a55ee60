"""The exceptions of a stack trace, from the outermost inwards, as Python, Java and Node write their chains.

What was raised `from` another says the same thing in other words: both count. What was raised while another was
handled is judged by itself first, and by the one it handled only if it says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.limits import FAILURE_CHAIN_MAX

DIRECT: Final = "The above exception was the direct cause of the following exception:"
HANDLING: Final = "During handling of the above exception, another exception occurred:"
RAISED: Final = re2.compile(r"^([A-Za-z_$][\w.$]*)(?:: (.*))?$")
CAUSED: Final = re2.compile(r"(?m)^\s*(?:Caused by:|\[cause\]:) *([A-Za-z_$][\w.$]*)(?:: ?(.*))?$")
GROUP_BORDER: Final = re2.compile(r"(?m)^[ |]*\+[-+]*(?: \d+ -+| ?-+)$")
GROUP_MARGIN: Final = re2.compile(r"(?m)^ *\| ?")


@dataclass(frozen=True, slots=True)
class Link:
    """One exception of a chain."""

    kind: str
    message: str
    trace: str
    """Its part of the stack trace."""


def chain(kind: str, message: str, stack: str) -> list[list[Link]]:
    """Groups of exceptions that say the same thing, the one that counts first; each from the outermost inwards."""
    groups = _python(stack) if "Traceback" in stack or DIRECT in stack or HANDLING in stack else []
    if not groups:
        causes = [Link(found[0], found[1].strip(), "") for found in CAUSED.findall(stack)[:FAILURE_CHAIN_MAX]]
        return [[Link(kind, message, stack), *causes]]
    outer = groups[0][0]
    if (kind or message) and (outer.kind, outer.message) != (kind, message):
        groups[0][0] = Link(kind or outer.kind, message or outer.message, outer.trace)
    return groups


def _python(stack: str) -> list[list[Link]]:
    if "ExceptionGroup" in stack:
        stack = GROUP_MARGIN.sub("", GROUP_BORDER.sub(f"\n{DIRECT}\n", stack))
        return [links] if (links := _grouped(stack)) else []
    groups: list[list[Link]] = []
    current: list[Link] = []
    pieces = stack.split(HANDLING)[-FAILURE_CHAIN_MAX:]
    for piece in reversed(pieces):
        current = [link for part in reversed(piece.split(DIRECT)[-FAILURE_CHAIN_MAX:]) if (link := _link(part))]
        if current:
            groups.append(current)
    return groups


def _grouped(stack: str) -> list[Link]:
    """An exception group comes first, its leaves behind it."""
    return [link for part in stack.split(DIRECT)[:FAILURE_CHAIN_MAX] if (link := _link(part))]


def _link(part: str) -> Link | None:
    """The exception that one traceback ends with: the first line after the frames that is not indented."""
    lines = part.strip("\n").split("\n")
    end = len(lines)
    backwards = range(end - 1, -1, -1)
    begin = next((index + 1 for index in backwards if lines[index].lstrip().startswith('File "')), 0)
    for index in range(begin, end):
        line = lines[index]
        if not line or line[0] in " \t" or line.startswith("Traceback"):
            continue
        found = RAISED.match(line)
        if found:
            rest = lines[index + 1 :]
            return Link(found[1], "\n".join([found[2] or "", *rest]).strip(), part)
        return None
    return None
