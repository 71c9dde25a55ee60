"""What the client's side has to make of each capture: the prompts in the order of posting, and the job around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Expected:
    """One `comfyui.prompt` span."""

    outcome: str
    error_type: str | None = None
    cached: int | None = None
    """comfyui.node.cached_count."""
    nodes: str = ""
    """Ids of the node spans in the order of their ends, as a WebSocket shows them; `!` after the one that failed."""
    outputs: int = 0
    validation: str | None = None

    @property
    def is_error(self) -> bool:
        return self.outcome in {"failed", "refused"}


def _refused(error_type: str, validation: str | None = None) -> Expected:
    return Expected("refused", error_type, validation=validation)


_INVALID: Final = "prompt_outputs_failed_validation"
_INTERRUPTED: Final = Expected("interrupted", "interrupted", 0, "1 2 3")
_DELETED: Final = Expected("interrupted", "interrupted")

PROMPTS: Final[dict[str, tuple[Expected, ...]]] = {
    "00": (),
    "01": (Expected("success", None, 0, "1 2 9", 1),),
    "02": (Expected("success", None, 3, "", 1),),
    "03": (Expected("success", None, 2, "9", 1),),
    "04": (
        _refused("no_prompt"),
        _refused("prompt_no_outputs"),
        _refused("missing_node_type"),
        _refused("missing_node_type"),
        _refused("prompt_no_outputs"),
        _refused(_INVALID, "required_input_missing"),
        _refused(_INVALID, "value_smaller_than_min"),
        _refused(_INVALID, "invalid_input_type"),
        _refused(_INVALID, "return_type_mismatch"),
        _refused(_INVALID, "value_not_in_list"),
        Expected("partial", "required_input_missing", 0, "1 9", 1, "required_input_missing"),
        _refused("500"),
        _refused(_INVALID, "exception_during_validation"),
    ),
    "05": (Expected("failed", "ValueError", 0, "1 2 3!"),),
    "06": (Expected("failed", "torch.OutOfMemoryError", 0, "1 2 3!"),),
    "07": (_INTERRUPTED,),
    "08": (_INTERRUPTED,),
    "09": (Expected("success", None, 0, "1 2 3 9", 1),),
    "10": (Expected("success", None, 0, "1 2 3 9", 1),),
    "11": (Expected("success", None, 0, "1 2 3 9", 1),),
    "12": (Expected("success", None, 0, "1 2 3 9", 1),),
    "13": (Expected("success", None, 0, "1 2 3.0.0.1 3.0.0.2 3 9", 1),),
    "14": (Expected("success", None, 0, "1 2 9 7", 1),),
    "15": (
        Expected("success", None, 0, "1 2 3 9", 1),
        Expected("success", None, 0, "1 2 9", 1),
        Expected("success", None, 0, "1 2 9", 1),
        _DELETED,
    ),
    "16": (Expected("success", None, 0, "1 2 3 9", 1),),
    "17": (),
    "18": (Expected("success", None, 0, "1 2 3 9", 0),),
    "19": (_INTERRUPTED, _DELETED, _refused("invalid_prompt_id")),
}
"""By the number of the capture, for a client that listens to its WebSocket."""

JOBS: Final[dict[str, tuple[str, str, str | None]]] = {
    **dict.fromkeys(PROMPTS, ("completed", "end", None)),
    "04": ("failed", "comfyui", _INVALID),
    "05": ("failed", "comfyui", "ValueError"),
    "06": ("failed", "comfyui", "torch.OutOfMemoryError"),
    "07": ("cancelled", "comfyui", "interrupted"),
    "08": ("cancelled", "comfyui", "interrupted"),
    "15": ("partial", "comfyui", "interrupted"),
    "19": ("failed", "comfyui", "invalid_prompt_id"),
}
"""Outcome, its source and error.type of a job that swallows everything."""


def prompts_of(number: str, *, listening: bool) -> list[Expected]:
    """Those of a capture. Who only asks sees no nodes, and of capture 04 no end: nobody asked for it."""
    found = list(PROMPTS[number])
    if listening:
        return found
    quiet = [replace(each, nodes="") for each in found]
    if number == "04":
        quiet[10] = Expected("unknown", None, None, "", 0, "required_input_missing")
    return quiet
