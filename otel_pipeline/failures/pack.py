"""Rules as data: what a pack of rules may say, and how it is read. Every mistake is told at once, with its place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from otel_pipeline.errors import ConfigError
from otel_pipeline.failures.classes import CLASSES, Fault
from otel_pipeline.failures.evidence import Evidence, evidence
from otel_pipeline.failures.patterns import compiled
from otel_pipeline.limits import FAILURE_RULES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATTERN_FIELDS: Final = ("message", "host", "span", "stack", "raised", "node", "attribute")
UNLESS: Final = "unless_"


def _listed(value: Any) -> Any:
    """One entry may stand without a list; numbers such as a status become text."""
    entries = value if isinstance(value, list | tuple) else [value]
    return [str(entry) if isinstance(entry, int) and not isinstance(entry, bool) else entry for entry in entries]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]


class Condition(BaseModel):
    """All fields that are given must hold, each by one of its entries; of those that begin with `unless_`, none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Texts = ()
    message: Texts = ()
    host: Texts = ()
    span: Texts = ()
    stack: Texts = ()
    raised: Texts = ()
    node: Texts = ()
    attribute: Texts = ()
    status: Texts = ()
    grpc: Texts = ()
    family: Texts = ()
    unless_type: Texts = ()
    unless_message: Texts = ()
    unless_status: Texts = ()
    unless_family: Texts = ()

    @field_validator("message", "host", "span", "stack", "raised", "node", "attribute", "unless_message")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compiled(pattern)
        return patterns

    def given(self) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
        """Field, whether it must not hold, entries."""
        for name in type(self).model_fields:
            if entries := getattr(self, name):
                yield name.removeprefix(UNLESS), name.startswith(UNLESS), entries


Conditions = Annotated[tuple[Condition, ...], BeforeValidator(_several)]


class Example(BaseModel):
    """A failure that the rule it stands in must decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = ""
    message: str = ""
    stack: str = ""
    status: str = ""
    span: str = ""
    attributes: dict[str, str | int | float | bool] = {}

    def evidence(self) -> Evidence:
        """As the classifier takes it."""
        return evidence(self.type, self.message, self.stack, self.status, self.span, self.attributes)


class Rule(BaseModel):
    """Says which class a failure has for which one of `when` holds and none of `unless`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    class_: Annotated[str, Field(alias="class")]
    when: Annotated[Conditions, Field(min_length=1)]
    unless: Conditions = ()
    retryable: bool | None = None
    fault: Fault | None = None
    examples: Annotated[tuple[Example, ...], Field(min_length=1)]

    @field_validator("class_")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CLASSES:
            raise ValueError(f"is no class; one of {', '.join(CLASSES)}")
        return name

    @field_validator("when")
    @classmethod
    def _not_empty(cls, when: tuple[Condition, ...]) -> tuple[Condition, ...]:
        if not all(any(not negative for _, negative, _ in condition.given()) for condition in when):
            raise ValueError("each needs a field that must hold")
        return when


class Pack(BaseModel):
    """Families and rules, the rules in the order in which they are asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    families: Annotated[dict[str, Conditions], Field(max_length=FAILURE_RULES_MAX)] = {}
    rules: Annotated[tuple[Rule, ...], Field(max_length=FAILURE_RULES_MAX)] = ()


@dataclass(frozen=True, slots=True)
class Wrong:
    """An example that its rule does not decide."""

    rule: str
    example: Example
    got_class: str
    got_rule: str


def read(text: str, origin: str) -> Pack:
    """A pack from YAML; raises ConfigError with every mistake."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError([f"{origin}: no YAML: {' '.join(str(error).split())}"]) from error
    try:
        return Pack.model_validate(tree if tree is not None else {})
    except ValidationError as error:
        mistakes = [
            f"{origin}: {'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ConfigError(mistakes) from error


def read_file(path: Path) -> Pack:
    """A pack from a file; raises ConfigError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
    return read(text, str(path))


@cache
def shipped() -> tuple[Pack, ...]:
    """The packs of this package, in order. Read once: each pipeline asks, and reading takes a third of a second."""
    folder = files("otel_pipeline.failures") / "shipped"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return tuple(read((folder / name).read_text(encoding="utf-8"), name) for name in names)


def merged(packs: list[Pack]) -> Pack:
    """One pack of several; families of one name are one. Raises ConfigError for what only the whole can tell."""
    families: dict[str, tuple[Condition, ...]] = {}
    for pack in packs:
        for name, conditions in pack.families.items():
            families[name] = (*families.get(name, ()), *conditions)
    rules = tuple(rule for pack in packs for rule in pack.rules)
    ids = [rule.id for rule in rules]
    mistakes = [f"the id {one} stands at two rules" for one in sorted({one for one in ids if ids.count(one) > 1})]
    everywhere = [(f"rule {rule.id}", condition) for rule in rules for condition in (*rule.when, *rule.unless)]
    mistakes += [
        f"{where}: {name} is no family; one of {', '.join(sorted(families))}"
        for where, condition in everywhere
        for name in (*condition.family, *condition.unless_family)
        if name not in families
    ]
    mistakes += [
        f"family {name}: a family cannot be told by a family"
        for name, conditions in families.items()
        if any(condition.family or condition.unless_family for condition in conditions)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return Pack(families=families, rules=rules)
