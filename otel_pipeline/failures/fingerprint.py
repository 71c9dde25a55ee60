"""Which failures are the same one: a short text that stays when numbers, ids, paths and line numbers change."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from otel_pipeline.failures import frames
from otel_pipeline.failures.wording import normalised
from otel_pipeline.limits import FINGERPRINT_FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.failures.chain import Link

VERSION: Final = "2"
"""Part of every fingerprint: another way to make them must not look like new failures of the old kind."""
ONE_SENTENCE: Final = "GPU_OOM_ERROR"
"""Behind the first sentence its messages count memory, each version of torch in other words."""


def fingerprint(
    name: str, links: list[Link], place: str, service: Callable[[str], str], context: Callable[[], str]
) -> str:
    """The class, the type of the root cause, the wording of its message and the program's own innermost frames.

    The wording counts beside the frames: a worker's one `run` function is the innermost own frame of failures that
    have nothing else in common. So does the known `service` that the message names: URLs are no part of its wording,
    and an error 500 of one provider is not that of another. Without such frames `place` counts, the type of a node,
    and without a message `context`. With frames these must not count: the log record of the same exception does not
    know them.
    """
    root = next((link for link in reversed(links) if link.kind and not link.kind.endswith("ExceptionGroup")), links[0])
    own = next((found for link in reversed(links) if (found := frames.own(link.trace, FINGERPRINT_FRAMES))), [])
    wording = normalised(root.message)
    if name == ONE_SENTENCE:
        wording = wording.partition(". ")[0]
    told = [wording, *own] if own else [place, wording or context()]
    text = "\n".join((VERSION, name, root.kind, service(root.message), *told))
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
