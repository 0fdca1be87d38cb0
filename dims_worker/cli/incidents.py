"""Define `dims incidents`: list and show what is not healthy, acknowledge it, and close it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import click
from rich.text import Text
from sqlalchemy import Connection, Engine

from dims_worker.analysis.incidents import explain_incident
from dims_worker.cli.approvals import as_option, decider
from dims_worker.cli.explain import print_lines
from dims_worker.cli.main import exit_with
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.config import Config
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.health import incident_label
from dims_worker.errors import DimsError, NotFound, UsageError
from dims_worker.formatting import NO_VALUE, escape_control, format_ago, pluralize
from dims_worker.incidents.decisions import acknowledge_incident, close_incident
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import (
    KINDS,
    RULE,
    Incident,
    Kind,
    find_incident,
    incident_metrics,
    incidents_of_story,
    list_incidents,
    open_incidents,
    story_sizes,
)
from dims_worker.text.evidence import evidence_document
from dims_worker.text.incident_lines import incident_headline, incident_lines
from dims_worker.text.incidents import (
    incident_document,
    incident_facts,
    incident_owner,
    incident_sentence,
    incident_status,
)
from dims_worker.text.json_documents import request_document

STATES = ("active", "open", "acknowledged", "closed", "all")
SEVERITY_STYLES = {"urgent": "bold red", "high": "red", "medium": "yellow", "low": "green", "none": "dim"}
EXIT_CODES = (
    "Exit codes: 0 nothing is open at or above --fail-on, 1 an incident is, or a value is held for approval, 2 wrong "
    "usage or configuration, 3 the database cannot be reached, 4 internal error."
)
FAIL_ON_HELP = "Exit with code 1 for an open incident of this severity or a higher one."
VERSION_HELP = "Decide this version only. DIMS refuses if the incident has changed. Default: the present version."
STORY_HELP = "Also decide every incident of this story that is not closed. A story is what opened in one run."


class ListingGroup(click.Group):
    """A group that lists if no command is named: `dims incidents --state all` is `dims incidents list --state all`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = ctx.help_option_names
        if not args or (args[0].startswith("-") and args[0] not in names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListingGroup)
@examples(
    "dims incidents",
    "dims incidents show 12",
    'dims incidents ack 12 --note "the disk is full, I clean it up"',
    'dims incidents close 12 --reason "the old seasons moved to the archive"',
)
def incidents() -> None:
    """List, show, acknowledge and close incidents.

    An incident is a period in which a metric is not healthy, for example since a value was lost. It stays open until
    the value is back or a person closes it, whatever DIMS measures meanwhile. Without a command, it lists.
    """


@incidents.command("list", epilog=EXIT_CODES)
@examples("dims incidents list", "dims incidents list --kind drift --metric 'git.*'", "dims incidents list --state all")
@click.option("--state", type=click.Choice(STATES), default="active", show_default=True, help="List only this state.")
@click.option("--kind", type=click.Choice(KINDS), help="List only this kind.")
@click.option("--metric", "-m", "metrics", multiple=True, help="List only this metric; `*` matches any text.")
@click.option("--fail-on", type=click.Choice(SEVERITIES[1:]), default="high", show_default=True, help=FAIL_ON_HELP)
@limit_option(200)
@json_option
@pass_session
def list_(
    session: Session,
    state: Any,
    kind: Kind | None,
    metrics: Sequence[str],
    fail_on: Severity,
    limit: int,
    as_json: bool,
) -> None:
    """List the incidents that are open or acknowledged.

    Incidents of one run are one story. The worst story comes first. Acknowledged incidents count as open.
    """
    with session.database() as engine, transaction(engine) as connection:
        names = _names(connection, session.config, metrics) if metrics else None
        listed = list_incidents(connection, limit=limit, state=state, kind=kind, metrics=names)
        active = [] if state == "closed" else open_incidents(connection, names)
        sizes, now = story_sizes(connection, {each.story for each in listed}), clock(connection)
    counted = [each for each in active if kind in (None, each.kind) and state in ("active", "all", each.state)]
    if as_json:
        documents = [incident_document(session.config, each, now, sizes[each.story]) for each in by_story(listed)]
        session.print_json({"incidents": documents, "active": len(counted)})
    else:
        _print_list(session, by_story(listed), counted, now)
    exit_with(exit_code(counted, fail_on))


def exit_code(active: Iterable[Incident], fail_on: Severity) -> int:
    """Return 1 for an incident at or above `fail_on`, or for a value that is held, else 0. Calm ones do not count."""
    return int(any(each.kind == "approval" or _is_at_least(each, fail_on) for each in active if not each.calm))


def _is_at_least(incident: Incident, floor: Severity) -> bool:
    return incident.severity in SEVERITIES and at_least(incident.severity, floor)


def by_story(listed: Sequence[Incident]) -> list[Incident]:
    """Return the incidents story by story: the most severe story first, then the newest."""
    stories: dict[int, list[Incident]] = {}
    for incident in listed:
        stories.setdefault(incident.story, []).append(incident)

    def weight(story: Sequence[Incident]) -> tuple[bool, int, int]:
        active = [each for each in story if each.active]
        severity = max((_severity_rank(each) for each in active or story), default=0)
        return bool(active), severity, story[0].story

    ordered = sorted(stories.values(), key=weight, reverse=True)
    return [each for story in ordered for each in sorted(story, key=lambda each: (-_severity_rank(each), each.id))]


def _severity_rank(incident: Incident) -> int:
    return SEVERITIES.index(incident.severity) if incident.severity in SEVERITIES else 0


def _print_list(session: Session, listed: Sequence[Incident], counted: Sequence[Incident], now: datetime) -> None:
    config = session.config
    if not listed:
        session.out.print("no incident is open" if not counted else "no incident is listed")
        return
    owners = [incident_owner(config, each) for each in listed]
    columns = ["incident", "story", "metric", "health", "what", "since", *(["owner"] if any(owners) else ()), "state"]
    table = plain_table(*columns, numbers=("incident", "story"))
    shown: int | None = None
    for incident, owner in zip(listed, owners, strict=True):
        label = Text(incident_label(config, incident), SEVERITY_STYLES.get(incident.severity, ""))
        story = str(incident.story) if incident.story != shown else ""
        metric, since = escape_control(incident.metric), format_ago(incident.since, now)
        cells: list[str | Text] = [str(incident.id), story, metric, label, incident_facts(config, incident, now), since]
        cells += [escape_control(owner or NO_VALUE)] if any(owners) else []
        table.add_row(*cells, incident_status(incident, now))
        shown = incident.story
    session.out.print(table)
    more = f" ({len(listed):,} listed)" if len(counted) > len(listed) else ""
    acknowledged = sum(each.state == "acknowledged" for each in counted)
    session.print_text(
        f"{pluralize(len(counted), 'incident')} not closed{more}, {acknowledged:,} acknowledged. "
        "`dims incidents show INCIDENT` shows one, and how to go on."
    )


def _names(connection: Connection, config: Config, patterns: Iterable[str]) -> set[str]:
    """Return the metrics and rules that the patterns name, among those that are configured or have incidents.

    Raises NotFound for a pattern that matches nothing.
    """
    known = {*config.definitions, *(f"{RULE}{name}" for name in config.rules), *incident_metrics(connection)}
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in known if fnmatchcase(name, pattern)}
        if not matches:
            raise NotFound(f"no metric is called {pattern}. List the metrics with `dims metrics`.")
        found |= matches
    return found


@incidents.command()
@examples("dims incidents show 12", "dims incidents show s3_storage.total_objects --json")
@click.argument("incident")
@json_option
@pass_session
def show(session: Session, incident: str, as_json: bool) -> None:
    """Show everything about an incident, and how to go on.

    INCIDENT is the number of an incident, or a metric with incidents that are not closed.
    """
    config = session.config
    with session.database() as engine, transaction(engine) as connection:
        chosen = _chosen(connection, incident)
        known, now = [explain_incident(connection, config, each) for each in chosen], clock(connection)
    if as_json:
        documents = [
            {
                **incident_document(config, each.incident, now, each.story_size),
                "others": [other.id for other in each.others],
                "approval": request_document(each.request) if each.request else None,
                **evidence_document(each.evidence, each.gaps),
            }
            for each in known
        ]
        session.print_json({"incidents": documents})
        return
    for each in known:
        session.print_text(incident_headline(config, each.incident), "bold")
        print_lines(session, incident_lines(config, each, now))


def _chosen(connection: Connection, name: str) -> list[Incident]:
    """Return the incident with a number, or the incidents of a metric that are not closed. Raises NotFound."""
    if name.isdecimal():
        found = find_incident(connection, int(name)) if int(name) < 2**63 else None
        if found is None:
            raise NotFound(f"there is no incident {name}: `dims incidents list` shows the open ones")
        return [found]
    active = open_incidents(connection, [name])
    if not active:
        raise NotFound(f"{name} has no open incident: `dims incidents list` shows the open ones")
    return active


def _decision_options(command: Any) -> Any:
    """Add the arguments that choose incidents, and the options of every decision."""
    command = as_option(command)
    command = click.option("--version", type=int, help=VERSION_HELP)(command)
    command = click.option("--story", type=int, help=STORY_HELP)(command)
    return click.argument("incident", nargs=-1)(command)


@incidents.command()
@examples(
    "dims incidents ack 12",
    "dims incidents ack 12 13 --note 'I restore the backup'",
    "dims incidents ack --story 12 --as ada",
)
@_decision_options
@click.option("--note", help="What you do about it. Every output shows it.")
@pass_session
def ack(
    session: Session,
    incident: Sequence[str],
    story: int | None,
    version: int | None,
    name: str | None,
    note: str | None,
) -> None:
    """Acknowledge incidents, so that DIMS sends no more messages.

    You know of them and work on them. They stay in every list and still count, until the value is back or a person
    closes them.

    INCIDENT is the number of an incident, or a metric with incidents that are not closed.
    """
    person = decider(session, name)

    def acknowledge(engine: Engine, number: int, seen: int) -> Incident:
        return acknowledge_incident(engine, session.config, number, version=seen, person=person, note=note)

    _decide(session, _Choice(incident, story, version), acknowledge, "acknowledged")


@incidents.command()
@examples(
    "dims incidents close 12 --reason 'the old seasons moved to the archive'",
    "dims incidents close --story 12 --reason 'the bucket was split' --as ada",
)
@_decision_options
@click.option("--reason", required=True, help="Why it is fine. It is kept in the history.")
@pass_session
def close(
    session: Session, incident: Sequence[str], story: int | None, version: int | None, name: str | None, reason: str
) -> None:
    """Close incidents, because the new values are expected.

    What happened is fine, and your reason says why. The values of a closed drift teach DIMS: a new level begins. If a
    value waits for approval, closing its incident approves it, with your reason as the note.

    INCIDENT is the number of an incident, or a metric with incidents that are not closed.
    """
    person = decider(session, name)

    def end(engine: Engine, number: int, seen: int) -> Incident:
        return close_incident(engine, session.config, number, version=seen, person=person, reason=reason)

    _decide(session, _Choice(incident, story, version), end, "closed")


@dataclass(frozen=True, slots=True)
class _Choice:
    """The incidents that a command names: by number or metric, and by story. `version` is that of a single one."""

    names: Sequence[str]
    story: int | None
    version: int | None

    def incidents(self, connection: Connection) -> list[Incident]:
        """Return them, each once. Raises UsageError, and NotFound for a name or a story without an incident."""
        if not self.names and self.story is None:
            raise UsageError("INCIDENT is missing. Give the number of an incident, a metric, or --story.")
        chosen = {each.id: each for name in self.names for each in _chosen(connection, name)}
        if self.story is not None:
            active = [each for each in incidents_of_story(connection, self.story) if each.active]
            if not active:
                raise NotFound(f"story {self.story} has no open incident: `dims incidents list` shows the open ones")
            chosen |= {each.id: each for each in active}
        if self.version is not None and len(chosen) > 1:
            raise UsageError(f"--version is about one incident, and you name {len(chosen)}. Decide each on its own.")
        return list(chosen.values())


def _decide(session: Session, choice: _Choice, decide: Callable[[Engine, int, int], Incident], verb: str) -> None:
    """Decide each chosen incident, and print what became of it.

    An error does not stop the others. The first one gives the exit code.
    """
    code = 0
    with session.database() as engine:
        with transaction(engine) as connection:
            chosen = choice.incidents(connection)
        for incident in chosen:
            try:
                decided = decide(engine, incident.id, incident.version if choice.version is None else choice.version)
            except DimsError as error:
                code = code or error.exit_code
                click.echo(f"dims: {error}", err=True)
            else:
                _print_decided(session, engine, decided, verb)
    exit_with(code)


def _print_decided(session: Session, engine: Engine, decided: Incident, verb: str) -> None:
    with transaction(engine) as connection:
        now = clock(connection)
    by = escape_control((decided.closed_by if verb == "closed" else decided.acknowledged_by) or "DIMS")
    metric, sentence = escape_control(decided.metric), incident_sentence(session.config, decided, now)
    session.print_text(f"incident {decided.id} {verb} by {by}: {metric}: {sentence}")
