"""What events told of a change, what none of them told, and gaps by name: in facts and in sentences."""

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
    return LoggedEvent(7, "git", sha, "", "dims.git.commit", "main", NOW, NOW - timedelta(hours=2), None, "planned", None,
                  data, None, (), (), 1, None)  # fmt: skip


# --- what was told --------------------------------------------------------------------------------------


def test_events_are_told_by_what_they_are() -> None:
    types = {PUT: 5, DELETE: 2, EXPIRED: 1, TAGGED: 3, "dims.git.commit": 20, "dims.git.merge": 1,
             "dims.files.changed": 4, "dims.schedule.tick": 6, "dims.verify.requested": 1}  # fmt: skip
    told = summarize_events(types, [commit()], [folder("raw/", 5, 3)])
    assert (told.number, told.number_of_commits, told.created, told.removed) == (43, 21, 5, 3)
    assert told.others == {TAGGED: 3, "dims.files.changed": 4}
    assert told.requested == {"dims.schedule.tick": 6, "dims.verify.requested": 1}
    assert told.number_of_changes == 36


def test_few_folders_are_told_as_they_are_most_objects_first() -> None:
    found = by_prefix([folder("raw/2026/11/21/", 2), folder("raw/2026/11/22/", 9), folder("", 1)])
    assert [(one.folder, one.created) for one in found] == [("raw/2026/11/22/", 9), ("raw/2026/11/21/", 2), ("", 1)]


def test_many_folders_are_brought_together_the_deepest_first() -> None:
    days = [folder(f"raw/2026/{month:02}/{day:02}/", 1, last=100 * month + day)
            for month in (10, 11) for day in range(1, 29)]  # fmt: skip
    found = by_prefix([*days, folder("schedules/", 3, 1, last=5)])
    assert [(one.folder, one.created, one.removed) for one in found] == [
        ("raw/2026/10/", 28, 0), ("raw/2026/11/", 28, 0), ("schedules/", 3, 1),
    ]  # fmt: skip
    assert found[1].newest == ("raw/2026/11/28/1128.json", "raw/2026/11/27/1127.json", "raw/2026/11/26/1126.json")


NAMES = st.lists(st.sampled_from("abc"), max_size=4).map(lambda parts: "".join(f"{part}/" for part in parts))


@given(st.lists(st.builds(folder, NAMES, st.integers(0, 9), st.integers(0, 9), st.integers(1, 99)), max_size=40,
                unique_by=lambda one: one.folder))  # fmt: skip
def test_no_object_is_lost_when_folders_are_brought_together(folders: list[Folder]) -> None:
    found = by_prefix(folders)
    for count in ("created", "removed"):
        assert sum(getattr(one, count) for one in found) == sum(getattr(one, count) for one in folders)
    assert len({one.folder for one in found}) == len(found) <= max(PREFIXES, 4)  # a, b, c and the bucket's own
    for one in folders:
        assert any(one.folder.startswith(each.folder) for each in found)


# --- what was not ---------------------------------------------------------------------------------------


def change(old: Any, new: Any) -> ValueChange:
    return ValueChange(old, new, NOW - timedelta(days=1), NOW)


def told(created: int = 0, removed: int = 0, others: int = 0, asked: int = 0) -> ReportedEvents:
    types = {PUT: created, DELETE: removed, "dims.scraper.complete": others, "dims.schedule.tick": asked}
    kept = {kind: number for kind, number in types.items() if number}
    return summarize_events(kept, [], [folder("raw/", created, removed)] if created or removed else [])


@pytest.mark.parametrize(
    ("events", "old", "new", "seen", "expected"),
    [
        (told(), 100, 100, None, None),  # no change
        (told(), 5, 5.0, None, None),
        (told(), 100, 101, None, ("all", None)),
        (told(asked=3), 100, 101, None, ("all", None)),  # who asks tells nothing
        (told(others=1), 100, 101, None, None),
        (told(), "a", "b", None, ("all", None)),
        (told(), None, 0, None, ("all", None)),
        (told(10), 100, 110, 10, None),
        (told(12), 100, 110, 10, None),  # two were there before
        (told(10), 100, 114, 14, ("more", 4)),
        (told(10, 3), 100, 107, 7, None),
        (told(10, 3), 100, 97, -3, None),  # each of the ten was there before
        (told(10, 3), 100, 96, -4, ("fewer", 1)),
        (told(10), 100, 98, -2, ("fewer", 2)),
        (told(removed=3), 100, 101, 1, ("more", 1)),
        (told(10), 100, 114, None, None),  # not a count of objects
    ],
)
def test_what_is_untold(
    events: ReportedEvents, old: Any, new: Any, seen: int | None, expected: tuple[str, int | None] | None
) -> None:
    found = find_unexplained(events, change(old, new), seen)
    assert (found and (found.what, found.objects)) == expected


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_a_change_that_was_told_whole_is_never_called_untold(new: int, again: int, gone: int, never: int) -> None:
    """`again`: keys that were there before and are written anew; `never`: removed keys that were not there."""
    events = told(new + again, gone + never)
    if events.number_of_changes:
        assert find_unexplained(events, change(100, 100 + new - gone), new - gone) is None


# --- gaps -----------------------------------------------------------------------------------------------


def test_gaps_are_the_names_that_a_reading_keeps() -> None:
    details = {"expected": 60, "found": 3, "missing": 57, "missing_ids": ["401", "402"], "unexpected": 0}
    assert named_gaps(details, 5.0) == (Gap("missing_ids", ("401", "402"), 57),)
    days = {"first": "2026-01-01", "missing": ["2026-01-02"], "unreadable": 3, "unreadable_names": ["x"]}
    assert named_gaps(days, 9) == (Gap("missing", ("2026-01-02",), 9), Gap("unreadable_names", ("x",), 3))
    assert named_gaps({"rows": [1, 2], "rows_total": 40}, 40) == (Gap("rows", (1, 2), 40),)
    assert named_gaps({"pairs": [{"folder": "a"}], "by_service": {"S3": 1}, "empty": []}, 1) == ()
    assert named_gaps(None, 1) == named_gaps({}, None) == ()


# --- in sentences ---------------------------------------------------------------------------------------


def test_the_sentences_of_a_change_that_is_explained() -> None:
    found = Evidence(
        summarize_events({PUT: 32_274, "dims.git.commit": 12, "dims.scraper.complete": 1, "dims.schedule.tick": 2},
                      [commit(), commit(None, "abcdef0123")], [folder("raw/2026/", 32_274, last=3)]),
        True, None, 32_274,
    )  # fmt: skip
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
        ("removal", "1 removed in s3://lake/: 1.json"), ("seen", "-1 objects; events report 0 created and 1 removed"),
    ]  # fmt: skip


def test_where_nothing_changed_the_events_are_counted_alone() -> None:
    found = Evidence(summarize_events({PUT: 2}, [commit()], [folder("raw/", 2)]), False, None, 0)
    assert list(evidence_lines(found, NOW)) == [
        ("events", "2 events between the baseline and the reading, and no change")
    ]


@pytest.mark.parametrize(
    ("untold", "events", "sentence"),
    [
        (Unexplained("all", None, ("s3",), (), 0), told(),
         "no event reports a change. Likely: S3's notifications do not reach DIMS"),
        (Unexplained("all", None, ("git",), (), 0), told(asked=1),
         "no event reports a change. Likely: the hook is missing (`dims hook install`)"),
        (Unexplained("all", None, ("files",), (), 2), told(),
         "no event reports a change. Likely: `dims watch` does not run, or does not watch the changed files, "
         "or one of the 2 events after the reading reports it"),
        (Unexplained("all", None, ("sql",), ("sql",), 0), told(),
         "sql sources send no events, so the cause is unknown"),
        (Unexplained("all", None, ("aws", "command"), ("aws", "command"), 0), told(),
         "aws and command sources send no events, so the cause is unknown"),
        (Unexplained("all", None, ("s3", "sql"), ("sql",), 0), told(),
         "no event reports a change. Likely: S3's notifications do not reach DIMS"),
        (Unexplained("all", None, (), (), 0), told(), "no event reports a change"),
        (Unexplained("more", 4, ("s3",), (), 0), told(10),
         "4 objects more than events can explain. Likely: some notifications did not reach DIMS"),
        (Unexplained("fewer", 1, ("s3",), (), 1), told(10, others=1),
         "1 object fewer than events can explain. Likely: events that name no keys, "
         "or the event after the reading reports it"),
    ],
)  # fmt: skip
def test_what_is_untold_is_said_plainly_with_what_is_likely(
    untold: Unexplained, events: ReportedEvents, sentence: str
) -> None:
    assert list(evidence_lines(Evidence(events, True, untold, None), NOW))[-1] == ("unexplained", sentence)


def test_gaps_in_sentences() -> None:
    many = Gap("missing_ids", tuple(str(number) for number in range(20)), 57)
    assert list(gap_lines([many, Gap("rows", (1, 2), 2), Gap("x", ("a\x1b[31m",), 1)])) == [
        ("names", "missing_ids: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 47 more"),
        ("names", "rows: 1, 2"),
        ("names", r"x: a\x1b[31m"),
    ]


def test_what_comes_from_outside_moves_no_cursor() -> None:
    hostile = "\x1b[31m"
    found = Evidence(
        summarize_events({f"x{hostile}": 1, PUT: 1, "dims.git.commit": 1}, [commit(hostile, hostile)],
                      [Folder(hostile, f"{hostile}/", 1, 0, (f"{hostile}/{hostile}",), 1)]), True, None, None,
    )  # fmt: skip
    assert not any("\x1b" in sentence for _, sentence in evidence_lines(found, NOW))
