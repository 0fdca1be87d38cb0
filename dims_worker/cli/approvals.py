"""`dims approvals`: what waits for a person, and deciding it."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from dims_worker.analysis.explanation import explain_request
from dims_worker.approvals import decisions as room
from dims_worker.approvals.decisions import Choice, Decider
from dims_worker.cli.explain import print_lines
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.cli.tables import plain_table
from dims_worker.formatting import NO_VALUE, escape_control, format_age, format_ago, format_drift, format_value
from dims_worker.store.approval_requests import ApprovalRequest, list_requests, open_requests
from dims_worker.store.engine import clock, transaction
from dims_worker.text.evidence import evidence_document, evidence_lines, gap_lines
from dims_worker.text.explanation import decision_hint
from dims_worker.text.json_documents import facts
from dims_worker.text.phrases import reason_text


@click.group()
def approvals() -> None:
    """What waits for a person, what was decided, and deciding.

    \b
    Examples:
      dims approvals list
      dims approvals show 12
      dims approvals approve 12 --note "the backfill of 2019"
    """


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Decided, superseded and withdrawn ones too.")
@json_option
@pass_session
def list_(session: Session, everything: bool, as_json: bool) -> None:
    """The requests that wait."""
    with session.database() as engine, transaction(engine) as connection:
        found = list_requests(connection, limit=200) if everything else list(open_requests(connection).values())
        now = clock(connection)
    if as_json:
        session.print_json({"requests": [facts(request) for request in found]})
        return
    if not found:
        session.out.print("nothing waits for a person")
        return
    table = plain_table("request", "metric", "baseline", "proposed", "drift", "severity", "waits since", "state",
                        numbers=("request", "baseline", "proposed", "drift"))  # fmt: skip
    for request in found:
        table.add_row(
            str(request.id), request.metric, _value(session, request, request.baseline, now),
            _value(session, request, request.value, now),
            format_drift(request.value, request.baseline, request.drift_pct), request.severity,
            format_ago(request.opened_at, now), Text(request.state, "yellow" if request.state == "open" else "dim"),
        )  # fmt: skip
    session.out.print(table)


@approvals.command()
@click.argument("request")
@json_option
@pass_session
def show(session: Session, request: str, as_json: bool) -> None:
    """One request: what is proposed, against what, why, and what speaks for it. REQUEST is its number or a metric."""
    with session.database() as engine:
        found = room.load_request(engine, request)
        with transaction(engine) as connection:
            evidence, gaps = explain_request(connection, session.config, found)
            now = clock(connection)
    if as_json:
        session.print_json({**facts(found), **evidence_document(evidence, gaps)})
        return
    print_request(session, found, now)
    print_lines(session, [*(evidence_lines(evidence, now) if evidence else ()), *gap_lines(gaps)])


def print_request(session: Session, request: ApprovalRequest, now: datetime) -> None:
    """A request in words, with what to do about it."""
    out = session.out
    proposed = _value(session, request, request.value, now)
    drift = format_drift(request.value, request.baseline, request.drift_pct)
    out.print(f"request {request.id}, version {request.version}: {request.metric}", style="bold")
    out.print(f"  baseline  {_baseline(session, request, now)}", soft_wrap=True)
    out.print(f"  proposed  {proposed}  ({drift}, {request.severity})", soft_wrap=True)
    out.print(f"  why       {escape_control(request.reason)}", soft_wrap=True)
    run = f", run {request.run_id}" if request.run_id is not None else ""
    ends = f"; it ends by itself in {format_age(request.expires_at - now)}" if request.expires_at else ""
    out.print(f"  since     {format_ago(request.opened_at, now)}{run}; {request.state}{ends}", soft_wrap=True)
    if request.state == "open":
        out.print(f"  decide    {decision_hint(request)}")
    else:
        who = f"{escape_control(request.decided_by)} ({request.known_by})" if request.decided_by else "by itself"
        out.print(
            f"  decided   {format_ago(request.decided_at, now)}, {who}{reason_text(request.note)}", soft_wrap=True
        )


@approvals.command()
@click.argument("metric", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many to show.")
@json_option
@pass_session
def history(session: Session, metric: str | None, limit: int, as_json: bool) -> None:
    """What became of requests, and baselines set by hand: who decided what, when and why; of METRIC, or of all."""
    with session.database() as engine, transaction(engine) as connection:
        found = [one for one in list_requests(connection, limit=limit, metric=metric) if one.state != "open"]
        now = clock(connection)
    if as_json:
        session.print_json({"requests": [facts(request) for request in found]})
        return
    if not found:
        session.out.print("nothing was decided yet")
        return
    table = plain_table("request", "metric", "baseline", "value", "drift", "state", "by", "when", "why",
                        numbers=("request", "baseline", "value", "drift"))  # fmt: skip
    for request in found:
        by = f"{escape_control(request.decided_by)} ({request.known_by})" if request.decided_by else "itself"
        table.add_row(
            str(request.id), request.metric, _baseline(session, request, now),
            _value(session, request, request.value, now),
            format_drift(request.value, request.baseline, request.drift_pct),
            "set by hand" if request.kind == "baseline" else request.state, by, format_ago(request.decided_at, now),
            escape_control(request.note or ""),
        )  # fmt: skip
    session.out.print(table)


def person_of(session: Session, who: str | None) -> Decider:
    """Who calls: `--as`, else DIMS_USER, else the system's user."""
    if who:
        return Decider(who, "option")
    if named := session.env.get("DIMS_USER"):
        return Decider(named, "environment")
    return Decider(getpass.getuser(), "system")


def as_option(command: Any) -> Any:
    """`--as NAME`, the same everywhere."""
    return click.option("--as", "who", help="Who decides (else DIMS_USER, else the system's user).")(command)


def _decision(choice: Choice, verb: str, done: str) -> click.Command:
    @click.command(verb, help=f"{verb.capitalize()} a request: {done} REQUEST is its number or a metric.")
    @click.argument("request")
    @click.option("--version", type=int, help="The version that you saw; refused if it has changed since.")
    @click.option("--note", help="Why, for those who come after.")
    @as_option
    @pass_session
    def command(session: Session, request: str, version: int | None, note: str | None, who: str | None) -> None:
        person = person_of(session, who)
        with session.database() as engine:
            seen = room.load_request(engine, request)
            if seen.state == "open" and version is None and session.out.is_terminal and sys.stdin.isatty():
                with transaction(engine) as connection:
                    print_request(session, seen, clock(connection))
                click.confirm(f"{verb} version {seen.version}?", abort=True)
            decision = room.decide_request(
                engine, session.config, str(seen.id), choice,
                version=seen.version if version is None else version, person=person, note=note,
            )  # fmt: skip
            with transaction(engine) as connection:
                now = clock(connection)
        decided = decision.request
        value = _value(session, decided, decided.value, now)
        baseline = _value(session, decided, decided.baseline, now)
        kept = f"{value} is the baseline now (was {baseline})" if choice == "approved" else f"{baseline} stays"
        if decision.already:
            kept = f"decided {format_ago(decided.decided_at, now)} already; nothing was changed"
        by = escape_control(decided.decided_by or "itself")
        session.out.print(f"request {decided.id} {choice} by {by}: {decided.metric}: {kept}", soft_wrap=True)

    return command


approvals.add_command(_decision("approved", "approve", "its value becomes the baseline."))
approvals.add_command(_decision("rejected", "reject", "the baseline stays."))


def _value(session: Session, request: ApprovalRequest, value: object, now: datetime) -> str:
    return format_value(value, request.unit, session.config.metrics.get(request.metric), now)


def _baseline(session: Session, request: ApprovalRequest, now: datetime) -> str:
    """What was accepted before; a metric may have had no baseline when one was set by hand."""
    none = request.kind == "baseline" and request.baseline_as_of is None
    return NO_VALUE if none else _value(session, request, request.baseline, now)
