"""Validates the settings of one section with its pydantic model, and puts what is wrong in the operator's words.

Owns what a Collector configuration may do that pydantic would refuse: keys without effect, a key without a value, a
reference whose text looks like a number where text is wanted.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, ValidationError

from otel_pipeline.config.expansion import as_text
from otel_pipeline.contracts import Settings
from otel_pipeline.settings import without_password

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from otel_pipeline.config.expansion import Expansion, Path

SettingsT = TypeVar("SettingsT", bound=Settings)
Annotation: TypeAlias = Any
"""A type as `FieldInfo.annotation` gives it."""

_WANTED: Final = {
    "model_type": "must be a map",
    "dict_type": "must be a map",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
}
"""pydantic's kinds of errors in the operator's words; for others its own words have to do."""
_SHOWN: Final = ("int_", "float_", "bool_", "greater_", "less_")
"""Kinds that show the wrong value. Where text is wanted it may be a secret."""


@dataclass(slots=True)
class Findings:
    """Collects over all sections."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def wrong(self, path: Path, message: str) -> None:
        """A mistake at a path."""
        self.mistakes.append(f"{as_text(path)}: {message}")

    def warn(self, path: Path, message: str) -> None:
        """A warning at a path."""
        self.warnings.append(f"{as_text(path)}: {message}")


def validated(
    model: type[SettingsT], node: object, path: Path, expansion: Expansion, findings: Findings
) -> SettingsT | None:
    """The settings at `path`, or None and at least one mistake more."""
    return _Section(model, path, expansion, findings).validated(node)


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """What may stand in the place of a wrong word, and which of them was perhaps meant."""
    words = sorted(allowed)
    close = difflib.get_close_matches(word, words, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"allowed: {', '.join(words) or 'none'}{meant}"


def keys_of(model: type[Settings]) -> dict[str, FieldInfo]:
    """Field by each key that the operator may write."""
    keys = {}
    for name, info in model.model_fields.items():
        alias = info.validation_alias or info.alias or name
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        keys.update({choice: info for choice in choices if isinstance(choice, str)})
    return keys


def section_of(annotation: Annotation) -> type[Settings] | None:
    """The model behind a type such as `TlsClient | None`, if it is just one."""
    arms = [arm for arm in _arms(annotation) if arm is not NoneType]
    is_section = len(arms) == 1 and isinstance(arms[0], type) and issubclass(arms[0], Settings)
    return arms[0] if is_section else None


def element_of(annotation: Annotation) -> Annotation:
    """The type of what a list, tuple or map holds; None for anything else."""
    arms = [arm for arm in _arms(annotation) if arm is not NoneType]
    if len(arms) != 1:
        return None
    origin: Any = get_origin(arms[0])
    if origin in {list, tuple}:
        return get_args(arms[0])[0]
    return get_args(arms[0])[1] if origin is dict else None


def _arms(annotation: Annotation) -> list[Annotation]:
    origin: Any = get_origin(annotation)
    if origin is Annotated:
        return _arms(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return [inner for arm in get_args(annotation) for inner in _arms(arm)]
    return [annotation]


@dataclass(frozen=True, slots=True)
class _Section(Generic[SettingsT]):
    model: type[SettingsT]
    path: Path
    expansion: Expansion
    findings: Findings

    def validated(self, node: object) -> SettingsT | None:
        prepared = self.prepared(self.model, {} if node is None else node, self.path)
        try:
            return self.model.model_validate(prepared)
        except ValidationError as error:
            errors = error.errors()
        if self.takes_as_text(errors, prepared):
            try:
                return self.model.model_validate(prepared)
            except ValidationError as error:
                errors = error.errors()
        self.explain(errors, prepared)
        return None

    # -- before ----------------------------------------------------------------------------------------------------

    def prepared(self, model: type[Settings], node: object, path: Path) -> object:
        """A copy without the keys that have no effect and without empty keys, as far as they mean the default."""
        if not isinstance(node, dict):
            return node
        keys, kept, idle = keys_of(model), {}, dict[str, list[str]]()
        for key, value in node.items():
            if key in keys:
                inner = self.prepared_value(keys[key].annotation, value, (*path, key))
                if inner is not None or (*path, key) in self.expansion.texts or _takes_none(keys[key].annotation):
                    kept[key] = inner
            elif key in model.without_effect:
                idle.setdefault(model.without_effect[key], []).append(key)
            else:
                kept[key] = value
        for reason, names in idle.items():
            self.findings.warn(path, f"{', '.join(names)}: accepted without effect: {reason}")
        return kept

    def prepared_value(self, annotation: Annotation, value: object, path: Path) -> object:
        section = section_of(annotation)
        if section is not None:
            return self.prepared(section, {} if value is None and _has_defaults(section) else value, path)
        element = element_of(annotation)
        if element is None:
            return value
        if isinstance(value, list):
            return [self.prepared_value(element, below, (*path, index)) for index, below in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.prepared_value(element, below, (*path, key)) for key, below in value.items()}
        return value

    # -- after -----------------------------------------------------------------------------------------------------

    def takes_as_text(self, errors: list[ErrorDetails], prepared: object) -> bool:
        """Puts the text of a reference where text is wanted, and drops an empty one; True if that changed something."""
        changed = False
        for error in errors:
            where = _located(error, prepared)
            text = self.expansion.texts.get((*self.path, *where))
            if text is None or not where:
                continue
            holder = _at(prepared, where[:-1])
            if error["type"] == "string_type":
                holder[where[-1]] = text
                changed = True
            elif text == "" and isinstance(holder, dict) and where[-1] in holder:
                del holder[where[-1]]
                changed = True
        return changed

    def explain(self, errors: list[ErrorDetails], prepared: object) -> None:
        by_path: dict[Path, list[str]] = {}
        for error in errors:
            where = _located(error, prepared)
            message = self.hidden(self.message(error, where), (*self.path, *where), error["input"])
            messages = by_path.setdefault((*self.path, *where), [])
            if message not in messages:
                messages.append(message)
        for path, messages in by_path.items():
            self.findings.wrong(path, ", or ".join(messages))

    def message(self, error: ErrorDetails, where: Path) -> str:
        kind, context = error["type"], error.get("ctx", {})
        if kind == "extra_forbidden":
            model = _model_at(self.model, where[:-1])
            return f"unknown key; {suggestion(str(where[-1]), keys_of(model))}" if model else "unknown key"
        if kind == "missing":
            return "is needed"
        if kind == "value_error":
            return str(context["error"])
        if kind in {"literal_error", "enum"}:
            return f"{error['input']!r} is not allowed; allowed: {context['expected']}"
        wanted = _WANTED.get(kind) or error["msg"].replace("Input should be", "must be")
        shown = isinstance(error["input"], int | float | str) and kind.startswith(_SHOWN)
        return f"{wanted}, not {error['input']!r}" if shown else wanted

    def hidden(self, message: str, path: Path, value: object) -> str:
        """The message with each value that a reference brought as the reference was written: it may be a secret."""
        for length in range(len(path), 0, -1):
            written = self.expansion.written.get(path[:length])
            if written is not None:
                text = str(value)
                shown = message.replace(repr(value), f"'{written}'")
                shown = shown.replace(text, written) if len(text) > 1 else shown
                return shown if written in shown else f"{shown} (written as {written})"
        return without_password(message)


def _takes_none(annotation: Annotation) -> bool:
    return any(arm in {Any, object, NoneType} for arm in _arms(annotation))


def _has_defaults(section: type[Settings]) -> bool:
    try:
        section.model_validate({})
    except ValidationError:
        return False
    return True


def _located(error: ErrorDetails, node: object) -> Path:
    """The keys and indexes of an error's location; pydantic mixes in the names of types it tried."""
    path: list[str | int] = []
    for part in error["loc"]:
        if (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int)):
            path.append(part)
            node = node[part]  # type: ignore[index]  # a list has an int here
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return tuple(path)


def _at(node: Any, path: Path) -> Any:
    for part in path:
        node = node[part]
    return node


def _model_at(model: type[Settings], path: Path) -> type[Settings] | None:
    annotation: Annotation = model
    for part in path:
        section = section_of(annotation)
        info = keys_of(section).get(str(part)) if section else None
        annotation = info.annotation if info else element_of(annotation)
    return section_of(annotation)
