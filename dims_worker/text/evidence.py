"""Write the evidence for a change as sentences: what events report, what is unexplained, and the names in a reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from dims_worker.analysis.evidence import PREFIXES, Evidence, Gap, ReportedEvents, Unexplained
from dims_worker.events import SCHEDULE_TICK, VERIFY_REQUESTED, WORKFLOW_REQUESTED
from dims_worker.formatting import escape_control, format_ago, pluralize
from dims_worker.store.change_events import Folder
from dims_worker.text.phrases import Line

_MAX_NAMES = 10
"""The most names of a gap to write."""

_LIKELY_CAUSES = {
    "files": "`dims watch` does not run, or does not watch the changed files",
    "git": "the hook is missing (`dims hook install`)",
    "s3": "S3's notifications do not reach DIMS",
}
"""Why no event reported a change, by the type of the source."""
_RUN_NAMES = {
    SCHEDULE_TICK: "scheduled run",
    VERIFY_REQUESTED: "manual run",
    WORKFLOW_REQUESTED: "workflow run",
}

PlacedLine = tuple[str, str, int | None]
"""A line, with the number of the event that it describes."""


def evidence_lines(evidence: Evidence, now: datetime) -> Iterator[Line]:
    """Yield what the events between a baseline and a reading report about the change."""
    return ((topic, sentence) for topic, sentence, _ in placed_lines(evidence, now))


def placed_lines(evidence: Evidence, now: datetime) -> Iterator[PlacedLine]:
    """Yield the same lines, each with the number of its event in the log, or of the newest of several."""
    reported = evidence.reported
    unchanged = "" if evidence.changed else ", and no change"
    yield "events", f"{pluralize(reported.number, 'event')} between the baseline and the reading{unchanged}", None
    if not evidence.changed:
        return
    for commit in reported.commits:
        data = commit.data or {}
        title = f" “{escape_control(data['subject'])}”" if data.get("subject") else ""
        name = escape_control(data.get("commit") or commit.event_id)[:7]
        yield "commit", f"{name}{title}, {format_ago(commit.received_at, now)}", commit.seq
    if earlier := reported.number_of_commits - len(reported.commits):
        yield "", f"and {pluralize(earlier, 'earlier commit')}", None
    for folder in reported.uploads[:PREFIXES]:
        yield "upload" if folder.created else "removal", _format_folder(folder), folder.last
    if rest := reported.uploads[PREFIXES:]:
        yield "", f"and {pluralize(sum(each.created + each.removed for each in rest), 'object')} elsewhere", None
    for kind, number in sorted((reported.others or {}).items()):
        yield "others", f"{number:,} {escape_control(kind)}", None
    if reported.requested:
        runs = (pluralize(number, _RUN_NAMES[kind]) for kind, number in sorted(reported.requested.items()))
        yield "requested", f"{', '.join(runs)} (no change event)", None
    if evidence.seen is not None and reported.uploads:
        counts = f"{reported.created:,} created and {reported.removed:,} removed"
        yield "seen", f"{evidence.seen:+,} objects; events report {counts}", None
    if evidence.unexplained:
        yield "unexplained", format_unexplained(evidence.unexplained, reported), None


def _format_folder(folder: Folder) -> str:
    counts = [f"{folder.created:,} created"] if folder.created else []
    counts += [f"{folder.removed:,} removed"] if folder.removed else []
    names = ", ".join(escape_control(key.rpartition("/")[2]) for key in folder.newest)
    newest = f", the newest {names}" if folder.created + folder.removed > 1 else f": {names}"
    return f"{', '.join(counts)} in s3://{escape_control(folder.bucket)}/{escape_control(folder.folder)}{newest}"


def format_unexplained(unexplained: Unexplained, reported: ReportedEvents) -> str:
    """Return what is unexplained, with the likely causes."""
    if unexplained.what != "all":
        amount = f"{pluralize(unexplained.objects or 0, 'object')} {unexplained.what} than events can explain"
        likely = ["events that name no keys"] if reported.others else ["some notifications did not reach DIMS"]
    elif unexplained.kinds and set(unexplained.kinds) <= set(unexplained.silent):
        sources = " and ".join(unexplained.kinds)
        return f"{sources} sources send no events, so the cause is unknown"
    else:
        amount = "no event reports a change"
        likely = [_LIKELY_CAUSES[kind] for kind in unexplained.kinds if kind in _LIKELY_CAUSES]
    if unexplained.later:
        which = "the event" if unexplained.later == 1 else f"one of the {unexplained.later:,} events"
        likely.append(f"{which} after the reading reports it")
    return f"{amount}. Likely: {', or '.join(likely)}" if likely else amount


def gap_lines(gaps: Sequence[Gap]) -> Iterator[Line]:
    """Yield the names in a reading: `missing_ids: 401, 402 and 55 more`."""
    for gap in gaps:
        names = gap.named[:_MAX_NAMES]
        more = f" and {gap.total - len(names):,} more" if gap.total > len(names) else ""
        yield "names", f"{escape_control(gap.name)}: {', '.join(map(escape_control, names))}{more}"


def evidence_document(evidence: Evidence | None, gaps: Sequence[Gap]) -> dict[str, Any]:
    """Return the facts as `--json` prints them: `events`, `unexplained`, `gaps`."""
    named = [asdict(gap) for gap in gaps]
    if evidence is None:
        return {"events": None, "unexplained": None, "gaps": named}
    reported = evidence.reported
    commits = [
        {
            "commit": (each.data or {}).get("commit"),
            "subject": (each.data or {}).get("subject"),
            "event": each.seq,
            "received_at": each.received_at,
        }
        for each in reported.commits
    ]
    return {
        "events": {
            "number": reported.number,
            "commits": commits,
            "number_of_commits": reported.number_of_commits,
            "uploads": [asdict(folder) for folder in reported.uploads],
            "created": reported.created,
            "removed": reported.removed,
            "seen": evidence.seen,
            "others": reported.others or {},
            "requested": reported.requested or {},
        },
        "unexplained": asdict(evidence.unexplained) if evidence.unexplained else None,
        "gaps": named,
    }
