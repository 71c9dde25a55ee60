"""Where a configuration comes from: files and URIs, read and merged into one tree as the Collector merges them.

Maps are joined key by key, everything else is replaced by the later source. References are not looked at here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_pipeline.config import yaml_text
from otel_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Tree: TypeAlias = dict[str, Any]
"""A map as YAML gives it: str keys; values are maps, lists, str, int, float, bool, None."""

SCHEMES: Final = ("env", "file", "yaml")
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_NESTING: Final = "::"
"""In a key at the top of a source: service::telemetry is the key telemetry in the map service."""


def read(sources: Sequence[str], environ: Mapping[str, str]) -> Tree:
    """Reads and merges `file:`, `env:` and `yaml:` URIs; a text without scheme is a path. Raises ConfigError."""
    merged: Tree = {}
    mistakes: list[str] = []
    for source in sources:
        try:
            merged = _merged(merged, _read_one(source, environ))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return merged


def as_source(setting: str) -> str:
    """The `yaml:` URI of a `key.of.a.setting=value`, as the command line has it. Raises ConfigError."""
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            [f"--set {key}: is no setting; allowed: KEY=VALUE, such as exporters.debug.verbosity=detailed"]
        )
    return f"yaml:{key.strip().replace('.', _NESTING)}: {value}"


def split_uri(text: str) -> tuple[str, str]:
    """Scheme and rest of a URI; the scheme is empty if there is none."""
    match = _URI.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def read_file(name: str) -> str:
    """The text of a file. Raises ConfigError with the reason."""
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{name}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{name}: cannot be read: no UTF-8 at byte {error.start}"]) from error


def _read_one(source: str, environ: Mapping[str, str]) -> Tree:
    scheme, rest = split_uri(source)
    if scheme in {"", "file"}:
        return _as_tree(read_file(rest), rest)
    if scheme == "yaml":
        return _as_tree(rest, "yaml:")
    if scheme != "env":
        raise ConfigError([f"{scheme}: unknown scheme of a configuration; allowed: a path, {_listed_schemes()}"])
    if rest not in environ:
        raise ConfigError([f"env:{rest}: the environment variable is not set"])
    return _as_tree(environ[rest], f"env:{rest}")


def _as_tree(text: str, where: str) -> Tree:
    value = yaml_text.parse(text, where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError([f"{where}: is no configuration; allowed: a YAML map with receivers, exporters, service ..."])
    tree: Tree = {}
    for key, below in value.items():
        *outer, last = key.split(_NESTING)
        nested = {last: below}
        for name in reversed(outer):
            nested = {name: nested}
        tree = _merged(tree, nested)
    return tree


def _merged(earlier: Tree, later: Tree) -> Tree:
    joined = dict(earlier)
    for key, value in later.items():
        known = joined.get(key)
        joined[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return joined


def _listed_schemes() -> str:
    return ", ".join(f"{scheme}:" for scheme in SCHEMES)
