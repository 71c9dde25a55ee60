"""YAML as the Collector reads it: scalars of YAML 1.2, no dates, no yes and no; a key that stands twice is a mistake.

Owns the YAML library; nothing else imports it. Knows nothing of configurations.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from otel_pipeline.errors import ConfigError

_INT: Final = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_MERGE: Final = re.compile("<<")


def parse(text: str, where: str) -> Any:
    """The value of a YAML document. Raises ConfigError with the line of each mistake; `where` names the source."""
    loader = _Loader(text) if text.isprintable() else _checked_loader(text, where)
    try:
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{where}, line {line}: no valid YAML: {error.problem or error.context}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{where}: no valid YAML: nested too deep"]) from error
    finally:
        loader.dispose()
    if loader.duplicates:
        raise ConfigError([f"{where}, line {line}: the key {key!r} stands twice" for key, line in loader.duplicates])
    return value


def scalar(text: str) -> Any:
    """The value of a text that may be YAML; one that is not, or is a YAML string, is itself."""
    try:
        value = parse(text, "")
    except ConfigError:
        return text
    return text if isinstance(value, str) else value


def dump(value: object) -> str:
    """The value as block YAML, keys in their order."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=4096
    )
    return text


def dump_inline(value: object) -> str:
    """The value on one line, as it may stand behind a key."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, allow_unicode=True, width=2**20
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _checked_loader(text: str, where: str) -> _Loader:
    try:
        return _Loader(text)
    except yaml.reader.ReaderError as error:
        reason = f"the character #x{error.character:x} is not allowed"
        raise ConfigError(
            [f"{where}, line {text.count(chr(10), 0, error.position) + 1}: no valid YAML: {reason}"]
        ) from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str | None, Any] = {}  # noqa: RUF012  as the library has it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[tuple[str, int]] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  as in the base
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    self.duplicates.append((key.value, key.start_mark.line + 1))
                seen.add(key.value)
                key.tag = "tag:yaml.org,2002:str"  # a key is text, also 1 or true
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def int_of(self, node: Any) -> int:
        text = node.value.replace("_", "")
        digits = text.lstrip("+-")
        old_octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        try:
            return int(text, 8) if old_octal else int(text, 0)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, "no whole number", node.start_mark) from error

    def str_of(self, node: Any) -> str:
        return str(self.construct_scalar(node))


class _Dumper(yaml.SafeDumper):
    """Quotes what this reader or one of YAML 1.1 would take for something else than text."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  as in the base
        return True


_SCALARS: Final = (
    ("bool", _BOOL),
    ("int", _INT),
    ("float", _FLOAT),
    ("float", _INFINITE),
    ("null", _NULL),
    ("merge", _MERGE),
)
for _tag, _pattern in _SCALARS:
    for _reader in (_Loader, _Dumper):
        _reader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})$"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.int_of)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.str_of)
