"""Test the evidence for a change: reported events, the unexplained part and gaps, as data and as sentences."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.analysis.evidence import (
    PREFIXES,
    Evidence,
    Gap,
    ReportedEvents,
    Unexplained,
    ValueChange,
    by_prefix,
    find_unexplained,
    named_gaps,
    summarize_events,
)
from dims_worker.store.change_events import Folder
from dims_worker.store.events import LoggedEvent
from dims_worker.text.evidence import evidence_lines, gap_lines

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
PUT, DELETE, TAGGED = (f"com.amazonaws.s3.Object{kind}" for kind in ("Created:Put", "Removed:Delete", "Tagging:Put"))
EXPIRED = "com.amazonaws.s3.LifecycleExpiration:Delete"


def folder(name: str, created: int = 1, removed: int = 0, last: int = 1, bucket: str = "lake") -> Folder:
    return Folder(bucket, name, created, removed, (f"{name}{last}.json",), last)


def commit(subject: str | None = "Fix the loader", sha: str = "3f2a9c1d5e") -> LoggedEvent:
    data = {"commit": sha} | ({"subject": subject} if subject else {})
    columns: dict[str, Any] = dict.fromkeys(LoggedEvent.__slots__)
    columns |= {"seq": 7, "producer": "git", "event_id": sha, "type": "dims.git.commit", "subject": "main"}
    columns |= {"received_at": NOW - timedelta(hours=2), "outcome": "planned", "data": data}
    return LoggedEvent(**columns)


# --- reported events


def test_events_are_grouped_by_what_they_report() -> None:
    types = {
        PUT: 5,
        DELETE: 2,
        EXPIRED: 1,
        TAGGED: 3,
        "dims.git.commit": 20,
        "dims.git.merge": 1,
        "dims.files.changed": 4,
        "dims.schedule.tick": 6,
        "dims.verify.requested": 1,
    }
    events = summarize_events(types, [commit()], [folder("raw/", 5, 3)])
    assert (events.number, events.number_of_commits, events.created, events.removed) == (43, 21, 5, 3)
    assert events.others == {TAGGED: 3, "dims.files.changed": 4}
    assert events.requested == {"dims.schedule.tick": 6, "dims.verify.requested": 1}
    assert events.number_of_changes == 36


def test_few_folders_are_listed_by_number_of_objects() -> None:
    found = by_prefix([folder("raw/2026/11/21/", 2), folder("raw/2026/11/22/", 9), folder("", 1)])
    assert [(one.folder, one.created) for one in found] == [("raw/2026/11/22/", 9), ("raw/2026/11/21/", 2), ("", 1)]


def test_many_folders_are_merged_the_deepest_first() -> None:
    days = [
        folder(f"raw/2026/{month:02}/{day:02}/", 1, last=100 * month + day)
        for month in (10, 11)
        for day in range(1, 29)
    ]
    found = by_prefix([*days, folder("schedules/", 3, 1, last=5)])
    assert [(one.folder, one.created, one.removed) for one in found] == [
        ("raw/2026/10/", 28, 0),
        ("raw/2026/11/", 28, 0),
        ("schedules/", 3, 1),
    ]
    assert found[1].newest == ("raw/2026/11/28/1128.json", "raw/2026/11/27/1127.json", "raw/2026/11/26/1126.json")


NAMES = st.lists(st.sampled_from("abc"), max_size=4).map(lambda parts: "".join(f"{part}/" for part in parts))


@given(
    st.lists(
        st.builds(folder, NAMES, st.integers(0, 9), st.integers(0, 9), st.integers(1, 99)),
        max_size=40,
        unique_by=lambda one: one.folder,
    )
)
def test_merging_folders_loses_no_object(folders: list[Folder]) -> None:
    found = by_prefix(folders)
    for count in ("created", "removed"):
        assert sum(getattr(one, count) for one in found) == sum(getattr(one, count) for one in folders)
    assert len({one.folder for one in found}) == len(found) <= max(PREFIXES, 4)  # a, b, c and the root of the bucket
    for one in folders:
        assert any(one.folder.startswith(each.folder) for each in found)


# --- the unexplained part


def change(old: Any, new: Any) -> ValueChange:
    return ValueChange(old, new, NOW - timedelta(days=1), NOW)


def reported(created: int = 0, removed: int = 0, others: int = 0, requested: int = 0) -> ReportedEvents:
    types = {PUT: created, DELETE: removed, "dims.scraper.complete": others, "dims.schedule.tick": requested}
    kept = {kind: number for kind, number in types.items() if number}
    return summarize_events(kept, [], [folder("raw/", created, removed)] if created or removed else [])


@pytest.mark.parametrize(
    ("events", "old", "new", "seen", "expected"),
    [
        (reported(), 100, 100, None, None),  # no change
        (reported(), 5, 5.0, None, None),
        (reported(), 100, 101, None, ("all", None)),
        (reported(requested=3), 100, 101, None, ("all", None)),  # a request for a run reports no change
        (reported(others=1), 100, 101, None, None),
        (reported(), "a", "b", None, ("all", None)),
        (reported(), None, 0, None, ("all", None)),
        (reported(10), 100, 110, 10, None),
        (reported(12), 100, 110, 10, None),  # two existed before
        (reported(10), 100, 114, 14, ("more", 4)),
        (reported(10, 3), 100, 107, 7, None),
        (reported(10, 3), 100, 97, -3, None),  # all ten existed before
        (reported(10, 3), 100, 96, -4, ("fewer", 1)),
        (reported(10), 100, 98, -2, ("fewer", 2)),
        (reported(removed=3), 100, 101, 1, ("more", 1)),
        (reported(10), 100, 114, None, None),  # not a count of objects
    ],
)
def test_the_unexplained_part(
    events: ReportedEvents, old: Any, new: Any, seen: int | None, expected: tuple[str, int | None] | None
) -> None:
    found = find_unexplained(events, change(old, new), seen)
    assert (found and (found.what, found.objects)) == expected


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_a_fully_reported_change_is_never_unexplained(new: int, again: int, gone: int, never: int) -> None:
    """`again` counts keys that are overwritten, and `never` counts removed keys that did not exist."""
    events = reported(new + again, gone + never)
    if events.number_of_changes:
        assert find_unexplained(events, change(100, 100 + new - gone), new - gone) is None


# --- gaps


def test_gaps_are_the_names_in_a_reading() -> None:
    details = {"expected": 60, "found": 3, "missing": 57, "missing_ids": ["401", "402"], "unexpected": 0}
    assert named_gaps(details, 5.0) == (Gap("missing_ids", ("401", "402"), 57),)
    days = {"first": "2026-01-01", "missing": ["2026-01-02"], "unreadable": 3, "unreadable_names": ["x"]}
    assert named_gaps(days, 9) == (Gap("missing", ("2026-01-02",), 9), Gap("unreadable_names", ("x",), 3))
    assert named_gaps({"rows": [1, 2], "rows_total": 40}, 40) == (Gap("rows", (1, 2), 40),)
    assert named_gaps({"pairs": [{"folder": "a"}], "by_service": {"S3": 1}, "empty": []}, 1) == ()
    assert named_gaps(None, 1) == named_gaps({}, None) == ()


# --- sentences


def test_the_sentences_of_an_explained_change() -> None:
    found = Evidence(
        summarize_events(
            {PUT: 32_274, "dims.git.commit": 12, "dims.scraper.complete": 1, "dims.schedule.tick": 2},
            [commit(), commit(None, "abcdef0123")],
            [folder("raw/2026/", 32_274, last=3)],
        ),
        True,
        None,
        32_274,
    )
    assert list(evidence_lines(found, NOW)) == [
        ("events", "32,289 events between the baseline and the reading"),
        ("commit", "3f2a9c1 “Fix the loader”, 2 hours ago"),
        ("commit", "abcdef0, 2 hours ago"),
        ("", "and 10 earlier commits"),
        ("upload", "32,274 created in s3://lake/raw/2026/, the newest 3.json"),
        ("others", "1 dims.scraper.complete"),
        ("requested", "2 scheduled runs (no change event)"),
        ("seen", "+32,274 objects; events report 32,274 created and 0 removed"),
    ]


def test_the_sentences_of_uploads_and_removals_in_many_places() -> None:
    folders = [folder(f"{name}/", 10 - number, number % 2) for number, name in enumerate("abcdefg")]
    found = Evidence(summarize_events({PUT: 49, DELETE: 3}, [], folders), True, None, None)
    lines = list(evidence_lines(found, NOW))
    assert lines[1:4] == [
        ("upload", "10 created in s3://lake/a/, the newest 1.json"),
        ("upload", "9 created, 1 removed in s3://lake/b/, the newest 1.json"),
        ("upload", "8 created in s3://lake/c/, the newest 1.json"),
    ]
    assert lines[-1] == ("", "and 10 objects elsewhere")
    alone = Evidence(summarize_events({DELETE: 1}, [], [folder("", 0, 1)]), True, None, -1)
    assert list(evidence_lines(alone, NOW))[1:] == [
        ("removal", "1 removed in s3://lake/: 1.json"),
        ("seen", "-1 objects; events report 0 created and 1 removed"),
    ]


def test_without_a_change_the_events_are_only_counted() -> None:
    found = Evidence(summarize_events({PUT: 2}, [commit()], [folder("raw/", 2)]), False, None, 0)
    assert list(evidence_lines(found, NOW)) == [
        ("events", "2 events between the baseline and the reading, and no change")
    ]


@pytest.mark.parametrize(
    ("unexplained", "events", "sentence"),
    [
        (
            Unexplained("all", None, ("s3",), (), 0),
            reported(),
            "no event reports a change. Likely: S3's notifications do not reach DIMS",
        ),
        (
            Unexplained("all", None, ("git",), (), 0),
            reported(requested=1),
            "no event reports a change. Likely: the hook is missing (`dims hook install`)",
        ),
        (
            Unexplained("all", None, ("files",), (), 2),
            reported(),
            "no event reports a change. Likely: `dims watch` does not run, or does not watch the changed files, "
            "or one of the 2 events after the reading reports it",
        ),
        (
            Unexplained("all", None, ("sql",), ("sql",), 0),
            reported(),
            "sql sources send no events, so the cause is unknown",
        ),
        (
            Unexplained("all", None, ("aws", "command"), ("aws", "command"), 0),
            reported(),
            "aws and command sources send no events, so the cause is unknown",
        ),
        (
            Unexplained("all", None, ("s3", "sql"), ("sql",), 0),
            reported(),
            "no event reports a change. Likely: S3's notifications do not reach DIMS",
        ),
        (Unexplained("all", None, (), (), 0), reported(), "no event reports a change"),
        (
            Unexplained("more", 4, ("s3",), (), 0),
            reported(10),
            "4 objects more than events can explain. Likely: some notifications did not reach DIMS",
        ),
        (
            Unexplained("fewer", 1, ("s3",), (), 1),
            reported(10, others=1),
            "1 object fewer than events can explain. Likely: events that name no keys, "
            "or the event after the reading reports it",
        ),
    ],
)
def test_the_unexplained_part_has_its_likely_causes(
    unexplained: Unexplained, events: ReportedEvents, sentence: str
) -> None:
    assert list(evidence_lines(Evidence(events, True, unexplained, None), NOW))[-1] == ("unexplained", sentence)


def test_gaps_in_sentences() -> None:
    many = Gap("missing_ids", tuple(str(number) for number in range(20)), 57)
    assert list(gap_lines([many, Gap("rows", (1, 2), 2), Gap("x", ("a\x1b[31m",), 1)])) == [
        ("names", "missing_ids: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 47 more"),
        ("names", "rows: 1, 2"),
        ("names", r"x: a\x1b[31m"),
    ]


def test_text_from_outside_is_escaped() -> None:
    hostile = "\x1b[31m"
    found = Evidence(
        summarize_events(
            {f"x{hostile}": 1, PUT: 1, "dims.git.commit": 1},
            [commit(hostile, hostile)],
            [Folder(hostile, f"{hostile}/", 1, 0, (f"{hostile}/{hostile}",), 1)],
        ),
        True,
        None,
        None,
    )
    assert not any("\x1b" in sentence for _, sentence in evidence_lines(found, NOW))
