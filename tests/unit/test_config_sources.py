"""Below a configuration: YAML as the Collector reads it, sources and their merging, references."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_pipeline.config import yaml_text
from otel_pipeline.config.expansion import expand
from otel_pipeline.config.sources import as_source, read
from otel_pipeline.errors import ConfigError

# -- YAML --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("True", True),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("089", 89.0),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("~", None),
        ("", None),
        ("!!str 1", "1"),
        ("!!timestamp 2024-01-01", "2024-01-01"),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_yaml_has_the_types_that_the_collector_gives_it(text: str, value: object) -> None:
    parsed = yaml_text.parse(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: 1\nb: [", "here, line 2: no valid YAML: expected the node content"),
        ("a: 1\nb: 2\na: 3", "here, line 3: the key 'a' stands twice"),
        ("a: \x01", "here, line 1: no valid YAML: the character #x1 is not allowed"),
        ("a: 1\n--- b", "here, line 2: no valid YAML: but found another document"),
        ("!!python/object:os.system {}", "here, line 1: no valid YAML: could not determine a constructor"),
        ("!!int abc", "here, line 1: no valid YAML: no whole number"),
        ("[" * 600, "here: no valid YAML: nested too deep"),
    ],
)
def test_yaml_mistakes_have_their_line(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError, match=r"here") as caught:
        yaml_text.parse(text, "here")
    assert caught.value.mistakes[0].startswith(mistake)


def test_every_key_that_stands_twice_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        yaml_text.parse("a: 1\na: 2\nb: {c: 1, c: 2}", "here")
    assert len(caught.value.mistakes) == 2


@pytest.mark.parametrize(
    "value", ["yes", "1", "1e3", "0o17", "12:30", "true", "", "a: b", "2024-01-01", None, [1, {"a": "no"}]]
)
def test_what_is_dumped_reads_back(value: object) -> None:
    assert yaml_text.parse(yaml_text.dump({"k": value}), "") == {"k": value}
    assert yaml_text.parse(f"k: {yaml_text.dump_inline(value)}", "") == {"k": value}


# -- sources -----------------------------------------------------------------------------------------------------------


def test_later_sources_join_maps_and_replace_the_rest() -> None:
    sources = ["yaml:{a: {b: 1, c: [1]}, d: {e: 1}}", "yaml:{a: {c: [2]}, d: 5}", "env:MORE"]
    assert read(sources, {"MORE": "d: {f: 1}"}) == {"a": {"b": 1, "c": [2]}, "d": {"f": 1}}


def test_paths_and_file_uris_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1")
    (tmp_path / "b.yaml").write_text("\ufeffb: 1", encoding="utf-8")
    assert read([str(tmp_path / "a.yaml"), f"file:{tmp_path}/b.yaml"], {}) == {"a": 1, "b": 1}


def test_a_key_with_colons_is_nested_as_in_the_collector() -> None:
    assert read(["yaml:a::b: {c: 1}", as_source("a.b.d=[x]")], {}) == {"a": {"b": {"c": 1, "d": ["x"]}}}


def test_every_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    sources = ["nowhere.yaml", str(tmp_path / "latin.yaml"), "env:NOPE", "http://x/y", "yaml:[1]", "yaml:{"]
    with pytest.raises(ConfigError) as caught:
        read(sources, {})
    assert [text.split(": ", 1)[1][:28] for text in caught.value.mistakes] == [
        "cannot be read: No such file",
        "cannot be read: no UTF-8 at ",
        "the environment variable is ",
        "unknown scheme of a configur",
        "is no configuration; allowed",
        "no valid YAML: expected the ",
    ]


@pytest.mark.parametrize("setting", ["a.b", "=x", " =x"])
def test_set_needs_key_and_value_and_shows_no_value(setting: str) -> None:
    with pytest.raises(ConfigError, match="allowed: KEY=VALUE"):
        as_source(setting)


# -- references --------------------------------------------------------------------------------------------------------

ENVIRON = {
    "A": "1",
    "N": "A",
    "QUOTED": '"q"',
    "LIST": "[${env:A}, 2]",
    "MAP": "x: ${N}",
    "SELF": "${env:SELF}",
    "SELVES": "[${env:SELVES}, 1]",
    "KEY": "0123",
    "EMPTY": "",
    "DOLLARS": "a$$b",
    "INNER": "p${env:A}q",
    "BROKEN": "{",
}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:A}", 1),
        ("${A}", 1),
        ("x${env:A}", "x1"),
        ("${env:A}${env:A}", "11"),
        ("${env:${env:N}}", 1),
        ("${env:NOPE:-7}", 7),
        ("${NOPE:-seven}", "seven"),
        ("${env:NOPE:-x:-y}", "x:-y"),
        ("${env:NOPE:-${env:N}}", "A"),
        ("${env:NOPE:-[1, a]}", [1, "a"]),
        ("${env:EMPTY:-7}", None),
        ("<${env:EMPTY:-7}>", "<>"),
        ("${yaml:[1, 2]}", [1, 2]),
        ("${env:KEY}", 83),
        ("x${env:KEY}", "x0123"),
        ("${env:QUOTED}", '"q"'),
        ("${env:MAP}", {"x": "A"}),
        ("${env:INNER}", "p1q"),
        ("${env:BROKEN}", "{"),
        ("x${env:LIST}", "x[1, 2]"),
        ("$${env:A}", "${env:A}"),
        ("$$${env:A}", "$1"),
        ("$${A} ${A}", "${A} 1"),
        ("$$", "$"),
        ("a$b $1 $", "a$b $1 $"),
        ("${env:DOLLARS}", "a$b"),
        ("${", "${"),
        ("${env:A", "${env:A"),
        ("${env:A}}", "1}"),
        ("a}b${A}", "a}b1"),
    ],
)
def test_references_are_followed_as_the_collector_does(written: str, value: object) -> None:
    assert expand({"k": written}, ENVIRON).tree["k"] == value


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("${env:A-B}", "k: 'A-B' is no name of an environment variable; allowed: letters, digits and _"),
        ("${}", "k: '' is no name"),
        ("${http://x}", "k: ${http:...} has an unknown scheme; allowed: env, file, yaml"),
        ("${file:nowhere}", "k: ${file:...} cannot be followed: nowhere: cannot be read"),
        ("${env:SELF}", "k: too many references"),
        ("${env:SELVES}", "k: too many references"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_a_mistake(written: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand({"k": written}, ENVIRON)
    assert caught.value.mistakes[0].startswith(mistake)


def test_every_reference_that_cannot_be_followed_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        expand({"a": ["${x y}"], "b": {"c": "${http://x}"}}, {})
    assert [text.split(":")[0] for text in caught.value.mistakes] == ["a[0]", "b.c"]


def test_a_file_comes_in_without_its_last_line_break(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert expand({"k": f"Bearer ${{file:{tmp_path}/token}}"}, {}).tree["k"] == "Bearer secret"
