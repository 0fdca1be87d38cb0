"""What events told, what none of them told, and what a reading names: in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from dims_worker.analysis.evidence import PREFIXES, Evidence, Gap, ReportedEvents, Unexplained
from dims_worker.formatting import escape_control, format_ago, pluralize
from dims_worker.store.change_events import Folder
from dims_worker.text.phrases import Line

_NAMED = 10
"""So many names of a gap are written."""

_SILENT = {
    "files": "`dims watch` does not run, or not where the files are changed",
    "git": "the hook is missing (`dims hook install`)",
    "s3": "S3's notifications do not reach DIMS",
}
"""Why nobody told of a change in a source, by its kind."""


Placed = tuple[str, str, int | None]
"""A line, and the place in the log of the event that it speaks of."""


def evidence_lines(found: Evidence, now: datetime) -> Iterator[Line]:
    """What the events between a baseline and a reading say of the change."""
    return ((about, sentence) for about, sentence, _ in placed_lines(found, now))


def placed_lines(found: Evidence, now: datetime) -> Iterator[Placed]:
    """The same, each line with its event's place in the log; of several, with the newest's."""
    told = found.told
    same = "" if found.changed else ", and no change"
    yield "events", f"{pluralize(told.number, 'event')} between the baseline and the reading{same}", None
    if not found.changed:
        return
    for commit in told.commits:
        data = commit.data or {}
        subject = f" “{escape_control(data['subject'])}”" if data.get("subject") else ""
        name = escape_control(data.get("commit") or commit.event_id)[:7]
        yield "commit", f"{name}{subject}, {format_ago(commit.received_at, now)}", commit.seq
    if told.number_of_commits > len(told.commits):
        yield "", f"and {pluralize(told.number_of_commits - len(told.commits), 'commit')} before", None
    for one in told.uploads[:PREFIXES]:
        yield "upload" if one.created else "removal", _folder(one), one.last
    if rest := told.uploads[PREFIXES:]:
        yield "", f"and {pluralize(sum(one.created + one.removed for one in rest), 'object')} elsewhere", None
    yield from (
        ("others", f"{number:,} {escape_control(kind)}", None) for kind, number in sorted((told.others or {}).items())
    )
    if told.asked:
        asked = ", ".join(f"{number:,} {kind}" for kind, number in sorted(told.asked.items()))
        yield "asked", f"{asked}: asked for a measurement, told of no change", None
    if found.seen is not None and told.uploads:
        yield "seen", f"{found.seen:+,} objects; told of {told.created:,} created and {told.removed:,} removed", None
    if found.untold:
        yield "untold", untold_words(found.untold, told), None


def _folder(one: Folder) -> str:
    what = [f"{one.created:,} created"] if one.created else []
    what += [f"{one.removed:,} removed"] if one.removed else []
    names = ", ".join(escape_control(key.rpartition("/")[2]) for key in one.newest)
    newest = f", the newest {names}" if one.created + one.removed > 1 else f": {names}"
    return f"{', '.join(what)} in s3://{escape_control(one.bucket)}/{escape_control(one.folder)}{newest}"


def untold_words(untold: Unexplained, told: ReportedEvents) -> str:
    """What is unexplained, and why that may be."""
    if untold.what != "all":
        said = f"{pluralize(untold.objects or 0, 'object')} {untold.what} than events can explain"
        likely = ["some notifications did not reach DIMS"] if not told.others else ["events that name no keys"]
    elif untold.kinds and set(untold.kinds) <= set(untold.silent):
        return f"no event tells what changes in {_listed(untold.kinds)}: why it changed is known to nobody here"
    else:
        said = "unexplained: no event told of a change"
        likely = [_SILENT[kind] for kind in untold.kinds if kind in _SILENT]
    if untold.later:
        which = "the event" if untold.later == 1 else f"one of the {untold.later:,} events"
        likely.append(f"{which} that came after the reading tells of it")
    return f"{said}; likely {', or '.join(likely)}" if likely else said


def _listed(kinds: Sequence[str]) -> str:
    names = {"sql": "a database", "aws": "an AWS account", "command": "a program's output"}
    return " or ".join(names.get(kind, kind) for kind in kinds)


def gap_lines(gaps: Sequence[Gap]) -> Iterator[Line]:
    """The names that a reading keeps."""
    for gap in gaps:
        named = ", ".join(escape_control(name) for name in gap.named[:_NAMED])
        more = f" and {gap.total - len(gap.named[:_NAMED]):,} more" if gap.total > len(gap.named[:_NAMED]) else ""
        yield "names", f"{escape_control(gap.name)}: {named}{more}"


def evidence_document(found: Evidence | None, gaps: Sequence[Gap]) -> dict[str, Any]:
    """The same as `--json` prints it: `events`, `untold`, `gaps`."""
    if found is None:
        return {"events": None, "untold": None, "gaps": [asdict(gap) for gap in gaps]}
    told = found.told
    commits = [{"commit": (each.data or {}).get("commit"), "subject": (each.data or {}).get("subject"),
                "event": each.seq, "received_at": each.received_at} for each in told.commits]  # fmt: skip
    return {
        "events": {
            "number": told.number,
            "commits": commits,
            "number_of_commits": told.number_of_commits,
            "uploads": [asdict(folder) for folder in told.uploads],
            "created": told.created,
            "removed": told.removed,
            "seen": found.seen,
            "others": told.others or {},
            "asked": told.asked or {},
        },
        "untold": asdict(found.untold) if found.untold else None,
        "gaps": [asdict(gap) for gap in gaps],
    }
