"""Define `dims approvals`: list, show and decide approval requests."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from dims_worker.analysis.explanation import explain_request
from dims_worker.approvals.decisions import Choice, decide_request, load_request
from dims_worker.cli.explain import print_lines
from dims_worker.cli.session import Session, examples, json_option, limit_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.domain.approvers import Decider
from dims_worker.domain.health import WAITS
from dims_worker.formatting import (
    NO_VALUE,
    escape_control,
    format_ago,
    format_holding_drift,
    format_remaining,
    format_value,
    pluralize,
)
from dims_worker.store.approval_requests import ApprovalRequest, list_requests, open_requests
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import open_incidents
from dims_worker.text.evidence import evidence_document, evidence_lines, gap_lines
from dims_worker.text.explanation import decision_hint
from dims_worker.text.json_documents import request_document
from dims_worker.text.phrases import reason_text


@click.group()
@examples("dims approvals list", "dims approvals show 12", 'dims approvals approve 12 --note "the backfill of 2019"')
def approvals() -> None:
    """List, show and decide approval requests.

    When the value of a critical metric drifts too far from its baseline, DIMS holds it: the baseline is kept, and an
    approval request waits for you. Approve the request to make the value the new baseline, or reject it.
    """


@approvals.command("list")
@examples("dims approvals list", "dims approvals list --all --json")
@click.option("--all", "everything", is_flag=True, help="Also list decided, superseded and withdrawn requests.")
@json_option
@pass_session
def list_(session: Session, everything: bool, as_json: bool) -> None:
    """List the requests that wait for a decision."""
    with session.database() as engine, transaction(engine) as connection:
        requests = list_requests(connection, limit=200) if everything else list(open_requests(connection).values())
        others = sum(incident.kind != "approval" for incident in open_incidents(connection))
        now = clock(connection)
    if as_json:
        session.print_json({"requests": [request_document(request) for request in requests]})
        return
    hint = f"{pluralize(others, 'other incident')} not closed: `dims incidents` lists them" if others else ""
    if not requests:
        session.print_text(f"no request waits for a decision{f'; {hint}' if hint else ''}")
        return
    columns = ("request", "metric", "baseline", "proposed", "drift", "severity", "waits since", "state")
    table = plain_table(*columns, numbers=("request", "baseline", "proposed", "drift"))
    for request in requests:
        values = [_value(session, request, value, now) for value in (request.baseline, request.value)]
        drift = _drift(session, request, now)
        opened = format_ago(request.opened_at, now)
        waits = request.state == "open"
        state = Text(WAITS if waits else request.state, "yellow" if waits else "dim")
        table.add_row(str(request.id), request.metric, *values, drift, request.severity, opened, state)
    session.out.print(table)
    if hint:
        session.print_text(hint)


@approvals.command()
@examples("dims approvals show 12", "dims approvals show s3_storage.total_objects")
@click.argument("request")
@json_option
@pass_session
def show(session: Session, request: str, as_json: bool) -> None:
    """Show one request: its value, the baseline and the evidence.

    REQUEST is the number of a request, or a metric whose request is open.
    """
    with session.database() as engine:
        loaded = load_request(engine, request)
        with transaction(engine) as connection:
            evidence, gaps = explain_request(connection, session.config, loaded)
            now = clock(connection)
    if as_json:
        session.print_json({**request_document(loaded), **evidence_document(evidence, gaps)})
        return
    print_request(session, loaded, now)
    print_lines(session, [*(evidence_lines(evidence, now) if evidence else ()), *gap_lines(gaps)])


def print_request(session: Session, request: ApprovalRequest, now: datetime) -> None:
    """Print a request and how to decide it."""
    proposed = _value(session, request, request.value, now)
    drift = _drift(session, request, now)
    run = f", run {request.run_id}" if request.run_id is not None else ""
    expires = f"; expires {format_remaining(request.expires_at, now)}" if request.expires_at else ""
    session.print_text(f"request {request.id}, version {request.version}: {request.metric}", "bold")
    if request.state == "open":
        last = ("decide", decision_hint(request))
    else:
        decided = f"{format_ago(request.decided_at, now)}, {_decided_by(request)}{reason_text(request.note)}"
        last = ("decided", decided)
    lines = (
        ("baseline", _baseline(session, request, now)),
        ("proposed", f"{proposed}  ({drift}, {request.severity})"),
        ("why", escape_control(request.reason)),
        ("since", f"{format_ago(request.opened_at, now)}{run}; {request.state}{expires}"),
        last,
    )
    print_lines(session, lines)


@approvals.command()
@examples("dims approvals history", "dims approvals history s3_storage.total_objects --limit 5")
@click.argument("metric", required=False)
@limit_option(50)
@json_option
@pass_session
def history(session: Session, metric: str | None, limit: int, as_json: bool) -> None:
    """List past decisions, of METRIC or of all metrics.

    The list also has the baselines that people set by hand, and requests that ended without a decision.
    """
    with session.database() as engine, transaction(engine) as connection:
        listed = list_requests(connection, limit=limit, metric=metric)
        now = clock(connection)
    requests = [request for request in listed if request.state != "open"]
    if as_json:
        session.print_json({"requests": [request_document(request) for request in requests]})
        return
    if not requests:
        session.out.print("no request has been decided yet")
        return
    columns = ("request", "metric", "baseline", "value", "drift", "state", "by", "when", "why")
    table = plain_table(*columns, numbers=("request", "baseline", "value", "drift"))
    for request in requests:
        values = _baseline(session, request, now), _value(session, request, request.value, now)
        drift = _drift(session, request, now)
        state = "set by hand" if request.kind == "baseline" else request.state
        when, note = format_ago(request.decided_at, now), escape_control(request.note or "")
        table.add_row(str(request.id), request.metric, *values, drift, state, _decided_by(request), when, note)
    session.out.print(table)


def decider(session: Session, name: str | None) -> Decider:
    """Return who decides: the name from `--as`, or else DIMS_USER, or else the user of the system."""
    if name:
        return Decider(name, "option")
    if user := session.env.get("DIMS_USER"):
        return Decider(user, "environment")
    return Decider(getpass.getuser(), "system")


def as_option(command: Any) -> Any:
    """Add the option `--as NAME` to a command that decides."""
    text = "Decide under this name. Default: DIMS_USER, then your user name on this system."
    return click.option("--as", "name", metavar="NAME", help=text)(command)


_HELP = """{summary}

REQUEST is the number of a request, or a metric whose request is open.

\b
Examples:
  dims approvals {verb} 12 --note "checked by hand"
  dims approvals {verb} s3_storage.total_objects --version 1 --as ada
"""


def _decision_command(choice: Choice, verb: str, summary: str) -> click.Command:
    @click.command(verb, help=_HELP.format(summary=summary, verb=verb))
    @click.argument("request")
    @click.option("--version", type=int, help="Decide this version only. DIMS refuses if the request has changed.")
    @click.option("--note", help="Why you decide so. It is kept in the history.")
    @as_option
    @pass_session
    def command(session: Session, request: str, version: int | None, note: str | None, name: str | None) -> None:
        person = decider(session, name)
        with session.database() as engine:
            seen = load_request(engine, request)
            if version is None:
                version = seen.version
                if seen.state == "open" and session.out.is_terminal and sys.stdin.isatty():
                    with transaction(engine) as connection:
                        print_request(session, seen, clock(connection))
                    click.confirm(f"{verb} version {seen.version}?", abort=True)
            decision = decide_request(
                engine, session.config, str(seen.id), choice, version=version, person=person, note=note
            )
            with transaction(engine) as connection:
                now = clock(connection)
        decided = decision.request
        baseline = _value(session, decided, decided.baseline, now)
        effect = f"the baseline is still {baseline}"
        if choice == "approved":
            effect = f"{_value(session, decided, decided.value, now)} is the baseline now (was {baseline})"
        if decision.already:
            effect = f"it was decided {format_ago(decided.decided_at, now)}, and nothing was changed"
        by = escape_control(decided.decided_by or "DIMS")
        session.print_text(f"request {decided.id} {choice} by {by}: {decided.metric}: {effect}")

    return command


approvals.add_command(_decision_command("approved", "approve", "Approve a request: its value becomes the baseline."))
approvals.add_command(_decision_command("rejected", "reject", "Reject a request: the baseline is kept."))


def _value(session: Session, request: ApprovalRequest, value: object, now: datetime) -> str:
    return format_value(value, request.unit, session.config.metrics.get(request.metric), now)


def _drift(session: Session, request: ApprovalRequest, now: datetime) -> str:
    return format_holding_drift(request, session.config.metrics.get(request.metric), now)


def _baseline(session: Session, request: ApprovalRequest, now: datetime) -> str:
    """Return the baseline at the time. A metric can have had none when a person set one by hand."""
    none = request.kind == "baseline" and request.baseline_as_of is None
    return NO_VALUE if none else _value(session, request, request.baseline, now)


def _decided_by(request: ApprovalRequest) -> str:
    return f"{escape_control(request.decided_by)} ({request.known_by})" if request.decided_by else "DIMS"
