"""A stand-in for ComfyUI's server: its modules, functions and parameters as the hooks know them, in the two shapes that
differ (0.3.64 and 0.26.0), without torch, models or its node classes. `main.py` runs it as a program, `load` as a
module.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Final

FOLDER: Final = Path(__file__).parent
SHAPES: Final = ("0.3.64", "0.26.0")


def load(shape: str) -> ModuleType:
    """A fresh module `execution` of that shape, which is not in sys.modules."""
    module = ModuleType("execution")
    module.__dict__["SHAPE"] = shape
    source = FOLDER / "execution.py"
    exec(compile(source.read_text(), str(source), "exec"), module.__dict__)  # noqa: S102  our own file
    return module
