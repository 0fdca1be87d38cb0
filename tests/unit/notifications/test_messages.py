"""Messages are short, say what you can do, and contain no markup from outside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import Config, DerivedMetric, FilesMetric, FilesSource
from dims_worker.notifications.messages import (
    LONGEST,
    Message,
    MessageFacts,
    build_test_message,
    compose_message,
    sanitize,
)
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.incidents import Incident, Kind
from dims_worker.store.notifications import Notification
from tests.unit.notifications.incidents import HOUR, NOW, flapping, incident

SINCE = "since 2026-11-22 08:00 UTC"
CONFIG = Config(
    file=Path("nba/dims.yaml"),
    files=(),
    project=Path("/srv/nba"),
    home=Path("/srv/nba/.dims"),
    sources={"p": FilesSource(type="files", path=".")},
    metrics={
        "lake.objects": FilesMetric(source="p", measure="count"),
        "lake.upload": FilesMetric(source="p", measure="newest_age", unit="days"),
        "lake.cost": DerivedMetric(derive="lake.objects * 2", unit="USD", precision=2, owner="ada"),
    },
    rules={},
)


def facts_of(one: Incident, **more: Any) -> dict[str, Any]:
    """Return what a notification of an incident keeps."""
    names = ("kind", "story", "request", "severity", "reason", "value", "unit", "anchor", "flaps")
    return {"incident": one.id, **{name: getattr(one, name) for name in names}, **more}


def row(number: int, one: Incident | None, **more: Any) -> Notification:
    """Return a notification of an incident, or else of a workflow that needs attention."""
    usual = {"run_id": 1, "since": NOW - HOUR, "ended_at": None, "ending": None, "sent_at": None, "end_sent_at": None}
    kind = "attention" if one is None else f"{one.kind}:{one.id}"
    metric = "workflow.gap-analysis" if one is None else one.metric
    own = {"state": kind, "metric": metric, "facts": facts_of(one) if one else {}}
    return Notification(id=number, channel="ops", **{**usual, **own, **more})


def ended(number: int, one: Incident | None, ending: Mapping[str, Any], **more: Any) -> Notification:
    return row(number, one, **{"sent_at": NOW - HOUR, "ended_at": NOW, "ending": ending, **more})


def closed(number: int, kind: Kind = "drift", resolution: str = "recovered", **facts: Any) -> Incident:
    return incident(number, kind, state="closed", resolution=resolution, closed_at=NOW, **facts)


def request(number: int, **facts: Any) -> ApprovalRequest:
    usual = {
        "metric": "lake.objects",
        "kind": "drift",
        "state": "open",
        "version": 1,
        "value": 205_000,
        "unit": "objects",
        "as_of": NOW,
        "anchor": 205_000,
        "baseline": 172_726,
        "baseline_as_of": NOW,
        "baseline_version": 1,
        "drift_pct": 18.685,
        "severity": "high",
        "reason": "up 18.7 %",
        "evidence": None,
        "run_id": 1,
        "opened_at": NOW - HOUR,
        "updated_at": NOW,
        "expires_at": None,
        "decided_at": None,
        "decided_by": None,
        "known_by": None,
        "note": None,
    }
    return ApprovalRequest(id=number, **{**usual, **facts})


def facts(*known: Incident | ApprovalRequest, stories: Mapping[int, int] | None = None) -> MessageFacts:
    incidents = {each.id: each for each in known if isinstance(each, Incident)}
    requests = {each.id: each for each in known if isinstance(each, ApprovalRequest)}
    return MessageFacts(NOW, incidents, requests, stories or {})


def message(*rows: Notification, known: MessageFacts | None = None, **options: Any) -> Message:
    return compose_message(CONFIG, rows, known or facts(), **options)


def body(*rows: Notification, known: MessageFacts | None = None) -> list[str]:
    return message(*rows, known=known).body.splitlines()


def ack(number: int) -> str:
    return (
        f"dims incidents ack {number}   # or: dims incidents close {number} --reason ...; dims incidents show {number}"
    )


def other(number: int) -> str:
    return f"dims incidents ack {number}; dims incidents close {number} --reason ..."


# --- one state each --------------------------------------------------------------------------------------


def test_a_held_value_names_its_request_the_version_and_what_to_do() -> None:
    held = incident(9, "approval", request=12, unit="objects")
    sent = message(row(1, held), known=facts(held, request(12)))
    assert sent.title == "DIMS: 1 value waits for approval (project nba)"
    assert sent.tone == "warning"
    assert sent.body.splitlines() == [
        f"lake.objects: 172,726 objects -> 205,000 objects, +18.7 %, high: waits for approval {SINCE}",
        "    dims approvals approve 12 --version 1   (or reject; dims incidents show 9)",
    ]


def test_a_held_value_shows_its_request_as_it_is_now() -> None:
    """Otherwise people would approve a version whose value they have not seen."""
    changed = request(
        12, version=3, value=206_000, reason="up 19.3 %; 25.0 % from 165000, which a person last accepted"
    )
    held = incident(9, "approval", request=12, unit="objects")
    line, command = body(row(1, held, facts=facts_of(held, request=11)), known=facts(held, changed))
    assert "172,726 objects -> 206,000 objects" in line
    assert line.endswith("; 25.0 % from 165000, which a person last accepted")
    assert "approve 12 --version 3 " in command


UPLOAD = incident(3, "limit", "lake.upload", value=NOW.isoformat(), unit="days", reason="3 days old, too old")


@pytest.mark.parametrize(
    ("one", "text", "command"),
    [
        (incident(3), f"lake.objects: lost: 40 -> 1 file, -97.5 %, high, {SINCE}", ack(3)),
        (
            incident(3, low=38.0, high=44.0),
            f"lake.objects: lost: 40 -> 1 file, -97.5 %, expected 38 to 44, high, {SINCE}",
            ack(3),
        ),
        (
            incident(3, metric="lake.cost", anchor=2, value=3.14159, unit="USD", severity="urgent"),
            f"lake.cost (owner ada): drifted: 2 -> 3.14 USD, +57.1 %, urgent, {SINCE}",
            ack(3),
        ),
        (UPLOAD, f"lake.upload: beyond its limit: 3 days old, too old, {SINCE}", ack(3)),
        (
            incident(3, "limit", "lake.upload", reason="in the future: 2027 was 1 day ahead", unit="days"),
            f"lake.upload: in the future: 2027 was 1 day ahead, {SINCE}",
            ack(3),
        ),
        (
            incident(3, "failing", reason="failed 3 times in a row: AccessDenied"),
            f"lake.objects: failing: failed 3 times in a row: AccessDenied, {SINCE}",
            f"dims metrics lake.objects   # or: {other(3)}",
        ),
        (
            incident(3, "failing", "workflow.audit", reason="failed 4 times in a row: gone"),
            f"workflow.audit: failing: failed 4 times in a row: gone, {SINCE}",
            f"dims workflow audit --last   # or: {other(3)}",
        ),
        (
            incident(3, "stale", reason="not measured for 8 days"),
            "lake.objects: stale: not measured for 8 days",
            f"dims verify --metric lake.objects --update   # or: {other(3)}",
        ),
        (
            incident(3, "silence", "rule:nightly", reason="no event for 2 days"),
            f"rule:nightly: silent: no event for 2 days, {SINCE}",
            ack(3),
        ),
        (None, f"workflow.gap-analysis: needs attention {SINCE}", "dims workflow gap-analysis --last"),
    ],
)
def test_an_active_state_is_a_line_with_a_command_below(one: Incident | None, text: str, command: str) -> None:
    assert body(row(1, one), known=facts(*filter(None, [one]))) == [text, f"    {command}"]


def test_a_message_about_a_deleted_incident_shows_what_was_known_when_it_began() -> None:
    assert body(row(1, incident(3)))[0] == f"lake.objects: drifted: 40 -> 1 file, -97.5 %, high, {SINCE}"


@pytest.mark.parametrize(
    ("state", "old_facts", "text"),
    [
        ("held:12", {"value": 1, "unit": "files", "baseline": 40, "reason": "down"}, "waits for approval: down"),
        ("drift:major", {"value": 1, "unit": "files", "baseline": 40, "severity": "high"}, "drifted: 40 -> 1 file"),
        (
            "limit",
            {"value": 1, "unit": "files", "reason": "1 is below min = 2"},
            "beyond its limit: 1 is below min = 2",
        ),
        ("failed", {"error": "gone", "failures": 3}, "failing: gone"),
        ("stale", {"as_of": "2026-11-15T07:30:00+00:00", "stale_after": 604_800}, "stale: see the dashboard"),
    ],
)
def test_a_notification_of_an_earlier_version_is_sent(state: str, old_facts: Mapping[str, Any], text: str) -> None:
    """DIMS had no incidents then. Such a row can be unsent when people install a new version."""
    old = row(1, incident(1), state=state, facts=old_facts)
    assert body(old)[0].startswith(f"lake.objects: {text}")
    assert "None" not in "".join(body(old))
    assert body(ended(1, incident(1), {}, state=state, facts=old_facts))[0].startswith("resolved: lake.objects ")


def test_a_metric_that_flaps_says_how_often_since_when_and_that_messages_pause() -> None:
    flaps = flapping(3, value=39)
    sent = message(row(1, flaps, state="flapping"), known=facts(flaps))
    assert sent.title == "DIMS: 1 flaps (project nba)"
    assert sent.body.splitlines() == [
        f"lake.objects: flaps (lost): it began 3 times {SINCE}, latest value 39 files. "
        "DIMS sends no more about it until it has been calm for 6 hours",
        "    dims incidents show 3   # or: dims mute lake.objects --for 1d --reason ...",
    ]


READS = {"value": 172_800, "unit": "objects"}


@pytest.mark.parametrize(
    ("one", "ending", "text"),
    [
        (closed(3), READS, "lake.objects is back after 40 -> 1 file, -97.5 %: 172,800 files"),
        (closed(3, "limit"), READS, "lake.objects is within its limits again: 172,800 files"),
        (closed(3, "limit"), {}, "lake.objects is within its limits again"),
        (closed(3, "failing"), READS, "lake.objects was measured again: 172,800 files"),
        (closed(3, "stale"), READS, "lake.objects was measured again: 172,800 files"),
        (closed(3, "silence", metric="rule:nightly"), {}, "rule:nightly reports again"),
        (None, {"value": "ok"}, "workflow.gap-analysis is ok again"),
        (None, {}, "workflow.gap-analysis is no longer configured"),
        (closed(3, "failing", "retired"), {}, "lake.objects is no longer configured"),
        (
            closed(3, resolution="expected", closed_by="ada", closing_reason="the clean-up"),
            {},
            "lake.objects: incident 3 was closed as expected by ada: the clean-up",
        ),
        (closed(3, resolution="timeout"), {}, "lake.objects: incident 3 was closed after the time that policy sets"),
    ],
)
def test_an_ended_state_is_one_line(one: Incident | None, ending: Mapping[str, Any], text: str) -> None:
    known = facts(*filter(None, [one]))
    sent = message(ended(1, one, ending), known=known)
    assert (sent.body, sent.title, sent.tone) == (f"resolved: {text}", "DIMS: 1 resolved (project nba)", "success")
    assert body(ended(1, one, ending, sent_at=None), known=known) == [f"began and ended: {text}"]


def test_a_metric_that_flapped_is_calm() -> None:
    calm = closed(3)
    sent = message(ended(1, calm, {}, state="flapping"), known=facts(calm))
    assert sent.title == "DIMS: 1 calm again (project nba)"
    assert sent.body == "resolved: lake.objects is calm again: it has not changed for 6 hours"


@pytest.mark.parametrize(
    ("decision", "ending", "text"),
    [
        ({"state": "approved", "decided_by": "ada", "note": "the fill"}, {}, "was approved by ada: the fill"),
        ({"state": "rejected", "decided_by": "ada"}, {}, "was rejected by ada"),
        ({"state": "withdrawn"}, READS, "was withdrawn, the value is now 172,800 objects"),
        ({"state": "expired"}, {}, "expired"),
    ],
)
def test_how_a_request_ended(decision: Mapping[str, Any], ending: Mapping[str, Any], text: str) -> None:
    held = closed(9, "approval", request=12, unit="objects")
    assert body(ended(1, held, ending), known=facts(held, request(12, **decision))) == [
        f"resolved: lake.objects: 172,726 objects -> 205,000 objects (+18.7 %) {text}"
    ]


# --- several ---------------------------------------------------------------------------------------------


def test_the_title_counts_and_the_most_urgent_comes_first() -> None:
    known = [
        closed(1, "stale"),
        incident(2, metric="lake.cost", anchor=1, value=2),
        incident(3),
        incident(4, "approval", request=12),
        incident(5, "failing"),
        flapping(6, metric="lake.upload"),
    ]
    rows = [ended(1, known[0], READS), *(row(each.id, each) for each in known[1:5])]
    rows.append(row(6, known[5], state="flapping"))
    sent = message(*rows, known=facts(*known, request(12)))
    assert sent.title == (
        "DIMS: 1 value waits for approval, 1 lost, 1 failing, 1 drifted, 1 flaps, 1 resolved (project nba)"
    )
    assert sent.tone == "failure"
    lines = [line for line in sent.body.splitlines() if not line.startswith("    ")]
    assert [line.split(":")[0].split(" ")[0] for line in lines] == [
        "lake.objects",
        "lake.objects",
        "lake.objects",
        "lake.cost",
        "lake.upload",
        "resolved",
    ]


def test_only_the_newest_state_of_a_kind_is_shown_with_the_number_of_changes_that_were_not_sent() -> None:
    before, now = closed(3), incident(4, value=2)
    rows = [ended(1, before, READS, sent_at=None), row(2, now, since=NOW)]
    sent = message(*rows, known=facts(before, now))
    assert sent.title == "DIMS: 1 lost (project nba)"
    assert "40 -> 2 files" in sent.body
    assert "(2 changes before that were not sent)" in sent.body
    assert sent.body.count("lake.objects: ") == 1


def test_a_metric_that_flaps_is_one_entry_whatever_ended_before() -> None:
    one = flapping(3)
    sent = message(ended(1, one, READS), row(2, one, state="flapping", since=NOW), known=facts(one))
    assert sent.title == "DIMS: 1 flaps (project nba)"
    assert "(1 change before that was not sent)" in sent.body


def test_the_digest_shows_the_newest_state_of_each_metric_and_counts_the_others() -> None:
    known = [closed(1), closed(2, "limit"), incident(3, value=5), incident(4, metric="lake.cost")]
    rows = [
        ended(1, known[0], READS, sent_at=NOW - 3 * HOUR, ended_at=NOW - 2 * HOUR),
        ended(2, known[1], READS, sent_at=None, ended_at=NOW - HOUR),
        row(3, known[2], since=NOW),
        row(4, known[3], since=NOW),
    ]
    sent = message(*rows, known=facts(*known), digest=True)
    assert sent.title == "DIMS digest: 2 lost (project nba)"
    assert sent.body.splitlines() == [
        "2 metrics reached the limit of 4 messages in 24 hours. This is the newest state of each.",
        f"lake.objects: lost: 40 -> 5 files, -87.5 %, high, {SINCE} (3 changes before that were not sent)",
        f"    {ack(3)}",
        f"lake.cost (owner ada): lost: 40 -> 1 file, -97.5 %, high, {SINCE}",
        f"    {ack(4)}",
    ]


def test_a_story_of_one_run_says_how_many_metrics_it_affects() -> None:
    known = [incident(number, metric=f"lake.m{number}", story=3) for number in (3, 4)]
    found = [incident(number, "stale", f"lake.m{number}", story=5, run_id=None) for number in (5, 6)]
    rows = [row(each.id, each) for each in (*known, *found)]
    lines = body(*rows, known=facts(*known, *found, stories={3: 9, 5: 2}))
    assert lines[:2] == [
        "run 7 affects 9 metrics (lake.m3, lake.m4, 7 more): dims runs 7",
        "2 metrics (lake.m5, lake.m6) are affected at the same time: dims incidents",
    ]
    assert body(rows[0], known=facts(known[0], stories={3: 1}))[0].startswith("lake.m3: ")


@pytest.mark.parametrize("longest", [700, 2_000, LONGEST])
@pytest.mark.parametrize("number", [1, 3, 30, 500])
def test_what_does_not_fit_is_counted(number: int, longest: int) -> None:
    rows = [row(n, incident(n, metric=f"lake.m{n}")) for n in range(number)]
    sent = message(*rows, longest=longest)
    room = longest - len(sent.title)
    shown = sent.body.count("dims incidents ack")
    assert sent.title == f"DIMS: {number} drifted (project nba)"
    assert len(sent.body) <= room
    assert sent.body.count(": 40 -> ") == shown > 0  # complete, or not at all
    assert sent.body.endswith(f"and {number - shown} more: dims notify list") == (shown < number)
    assert shown == number or len(sent.body) > room - 2 * len(sent.body) / shown  # no other entry would have fitted


@pytest.mark.parametrize("longest", [0, 1, 160])
def test_a_service_that_accepts_little_gets_the_first_metric_complete(longest: int) -> None:
    held = [incident(n, "approval", f"lake.m{n}", request=12) for n in range(9)]
    known = facts(*held, request(12), stories=dict.fromkeys(range(9), 9))
    lines = message(*(row(each.id, each) for each in held), known=known, longest=longest).body.splitlines()
    assert lines[1] == "    dims approvals approve 12 --version 1   (or reject; dims incidents show 0)"
    assert lines[-1].endswith("more: dims notify list")


def test_a_first_metric_that_is_too_long_is_cut() -> None:
    held = incident(9, "approval", request=12, unit="objects")
    long = request(12, value="v" * 1_000, baseline="b" * 1_000, reason="different; " + "x" * 1_000)
    known = facts(held, long)
    whole = message(row(1, held), known=known).body
    assert len(whole) > 400
    assert message(row(1, held), known=known, longest=10).body == whole[:400]


# --- from outside ----------------------------------------------------------------------------------------

NASTY = "<!channel> @everyone [click](https://evil.example) `rm` <b>x</b>\n\x1b[31m\u202eabc"


def test_no_text_from_outside_is_markup() -> None:
    known = [
        incident(1, "failing", reason=NASTY),
        incident(2, "limit", value=NASTY, unit="", reason=NASTY),
        incident(3, metric="lake.text", value=NASTY, anchor=NASTY),
        closed(4, "approval", request=12),
        closed(5, "drift", "expected", metric="lake.other", closed_by=NASTY, closing_reason=NASTY),
    ]
    rows = [
        *(row(each.id, each) for each in known[:3]),
        *(ended(each.id, each, {"value": NASTY}) for each in known[3:]),
    ]
    decided = request(12, state="approved", decided_by=NASTY, note=NASTY, value=NASTY)
    lines = body(*rows, known=facts(*known, decided))
    for line in lines:
        own = line.replace(" -> ", " ")
        assert not set(own) & set("<>`@\n\x1b\u202e")
        assert "](" not in own
    assert "(at)everyone" in "\n".join(lines)


@given(st.text())
def test_a_sanitized_text_is_one_short_printable_line(text: str) -> None:
    sanitized = sanitize(text)
    assert len(sanitized) <= 300
    assert sanitized.isprintable()
    assert not set(sanitized) & set("<>`@")
    assert "](" not in sanitized


def test_a_name_a_path_and_a_reason_stay_as_they_are() -> None:
    for text in ("s3_storage.total_objects", "AccessDenied: s3://lake/a_b/*.parquet (403)", "up 18.7 %; 3 > 2"[:9]):
        assert sanitize(text) == text


def test_a_long_reason_is_cut() -> None:
    assert sanitize("x" * 1000) == "x" * 299 + "…"


def test_the_test_message_says_that_it_is_a_test() -> None:
    assert build_test_message(CONFIG, "ops").title == "DIMS: test message (project nba)"
    assert "ops" in build_test_message(CONFIG, "ops").body
