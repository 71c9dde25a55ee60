"""The commands `errors ...`: the groups of failures in the store, and the rules that name failures."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_pipeline.command_options import (
    as_json,
    configured,
    data_dir_option,
    layout_option,
    print_rows,
    store_beside,
)
from otel_pipeline.limits import ERROR_GROUPS_LISTED_MAX
from otel_pipeline.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_pipeline.failures.classify import Classifier
    from otel_pipeline.store.database import Database
    from otel_pipeline.store.error_group_tables import ErrorGroup, GroupService, State

MESSAGE_CHARS_SHOWN: Final = 60
"""In a table; `errors show` tells it in full."""
STATES: Final = ("open", "resolved", "ignored", "regressed")
ORDERS: Final = ("last_seen", "first_seen", "count", "traces")


@click.group()
def errors() -> None:
    """Groups of failures in the store, and the rules that name failures."""


# -- groups ------------------------------------------------------------------------------------------------------------


def _since(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Seconds of a duration."""
    try:
        return float(str(parse_duration(value))) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@errors.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only groups in this state.")
@click.option("--class", "class_", metavar="CLASS", help="Only groups of this class, such as TIMEOUT_ERROR.")
@click.option("--service", help="Only groups that were seen in this service.")
@click.option("--since", callback=_since, metavar="DURATION", help="Only groups seen so long ago at most, such as 24h.")
@click.option("--sort", type=click.Choice(ORDERS), default=ORDERS[0], show_default=True, help="The largest first.")
@click.option("--limit", type=click.IntRange(1, ERROR_GROUPS_LISTED_MAX), default=50, show_default=True)
@layout_option("table", "json")
@configured
@data_dir_option
def list_groups(  # noqa: PLR0917  click passes by name
    state: State | None,
    class_: str | None,
    service: str | None,
    since: float | None,
    sort: str,
    limit: int,
    layout: str,
    sources: Sequence[str],
    overrides: Sequence[str],
    data_dir: Path | None,
) -> None:
    """List groups of failures, beside a running gateway."""
    from otel_pipeline.store import error_group_queries  # noqa: PLC0415  the other commands start faster without

    since_ms = int((time.time() - since) * 1000) if since is not None else None
    order = next(order for order in error_group_queries.ORDERS if order == sort)
    wanted = error_group_queries.Wanted(state, class_, service, since_ms, order, limit)
    with _store(sources, overrides, data_dir) as database:
        groups = error_group_queries.list_groups(database, wanted)
    print_rows([_told(group) if layout == "json" else _line(group) for group in groups], layout)


@errors.command()
@click.argument("group")
@layout_option("text", "json")
@configured
@data_dir_option
def show(group: str, layout: str, sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> None:
    """Show one group: by its number, or by the beginning of its fingerprint."""
    from otel_pipeline.store.error_group_queries import find_group  # noqa: PLC0415  as above

    with _store(sources, overrides, data_dir) as database:
        found, services = find_group(database, group)
    if layout == "json":
        click.echo(as_json({**_told(found), "services": [_service(service) for service in services]}))
        return
    for key, value in _told(found).items():
        if value not in {"", None} and key != "services":
            click.echo(f"{key.replace('_', ' ')}: {value}")
    click.echo("services:")
    for service in services:
        click.echo(f"  {service.service or '(no name)'}: {service.count}, last seen {_utc(service.last_seen_ms)}")


def _setting(name: str, state: State, told: str, manual: str) -> None:
    """Registers the command `name GROUP...`, which gives groups a state."""

    @errors.command(name, help=manual)
    @click.argument("groups", nargs=-1, required=True, metavar="GROUP...")
    @configured
    @data_dir_option
    def command(groups: Sequence[str], sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> None:
        from otel_pipeline.store.error_group_queries import set_state  # noqa: PLC0415  as above

        with _store(sources, overrides, data_dir) as database:
            for group in groups:
                changed = set_state(database, group, state, int(time.time() * 1000))
                click.echo(
                    f"{told} {changed.id} {changed.fingerprint} {changed.class_} {changed.exception_type}".rstrip()
                )


_NAMED: Final = "Groups are named by number, or by the beginning of their fingerprint."
_setting("resolve", "resolved", "resolved", f"Call groups resolved: what happens from now on is a regression. {_NAMED}")
_setting("ignore", "ignored", "ignored", f"Go on counting groups, and make no news of them. {_NAMED}")
_setting("reopen", "open", "open again:", f"Take back what resolve or ignore did. {_NAMED}")


@contextmanager
def _store(sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> Iterator[Database]:
    """The store of the gateway with this configuration; what names no group becomes a line on stderr."""
    from otel_pipeline.store.error_group_queries import NoSuchGroup  # noqa: PLC0415  as above

    with store_beside(sources, overrides, data_dir) as (database, _, _):
        try:
            yield database
        except NoSuchGroup as error:
            raise click.ClickException(str(error)) from error


def _line(group: ErrorGroup) -> dict[str, Any]:
    """For a table; what a group looks like stands in one line."""
    looks = " ".join(f"{group.exception_type}: {group.message}".removeprefix(": ").split())
    return {
        "id": group.id,
        "fingerprint": group.fingerprint,
        "state": group.state,
        "class": group.class_,
        "traces": group.traces,
        "spans": group.count,
        "last_seen": _utc(group.last_seen_ms)[:19],
        "failure": looks if len(looks) <= MESSAGE_CHARS_SHOWN else f"{looks[:MESSAGE_CHARS_SHOWN]}...",
    }


def _told(group: ErrorGroup) -> dict[str, Any]:
    """All of a group, with times to read."""
    return {
        name.removesuffix("_").removesuffix("_ms"): _utc(value) if name.endswith("_ms") and value is not None else value
        for name, value in asdict(group).items()
    }


def _service(service: GroupService) -> dict[str, Any]:
    first, last = _utc(service.first_seen_ms), _utc(service.last_seen_ms)
    return {"service": service.service, "count": service.count, "first_seen": first, "last_seen": last}


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- rules -------------------------------------------------------------------------------------------------------------


_rules = click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of rules of your own, as `rules_file` of the processor error_class names it.",
)


@errors.command()
@_rules
@click.pass_context
def classify(ctx: click.Context, rules: Path | None) -> None:
    """Name the failures on stdin, one JSON object a line: exception_type, exception_message, stacktrace, ...

    Lines that cannot be read are told on stderr; then the exit code is 1.
    """
    from otel_pipeline.failures.lines import answers  # noqa: PLC0415  the other commands start faster without

    mistakes = 0
    for number, answer in answers(_classifier(rules), sys.stdin.buffer):
        if isinstance(answer, str):
            mistakes += 1
            click.echo(f"line {number}: {answer}", err=True)
        else:
            click.echo(json.dumps(answer))
    ctx.exit(1 if mistakes else 0)


@errors.command("test")
@_rules
@click.pass_context
def test_rules(ctx: click.Context, rules: Path | None) -> None:
    """Run the examples of all rules; exit code 1 if a rule does not decide its own."""
    classifier = _classifier(rules)
    wrong = classifier.wrong_examples()
    for one in wrong:
        told = one.example.model_dump(exclude_defaults=True)
        click.echo(f"{one.rule}: decided by {one.got_rule} as {one.got_class}: {json.dumps(told)}", err=True)
    examples = sum(len(rule.examples) for rule in classifier.pack.rules)
    click.echo(f"{len(classifier.pack.rules)} rules, {examples} examples, {len(wrong)} wrong")
    ctx.exit(1 if wrong else 0)


def _classifier(rules: Path | None) -> Classifier:
    from otel_pipeline.failures.classify import Classifier  # noqa: PLC0415  compiles the rules
    from otel_pipeline.failures.pack import read_file  # noqa: PLC0415  as above

    return Classifier(read_file(rules) if rules else None)
