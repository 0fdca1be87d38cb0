"""Messages are short, say what you can do, and contain no markup from outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import Config, DerivedMetric, FilesMetric
from dims_worker.notifications.messages import LONGEST, build_test_message, compose_message, sanitize
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.notifications import Notification

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
SINCE = "since 2026-11-22 08:00 UTC"
CONFIG = Config(
    file=Path("nba/dims.yaml"),
    files=(),
    project=Path("/srv/nba"),
    home=Path("/srv/nba/.dims"),
    sources={},
    metrics={
        "lake.objects": FilesMetric(source="p", measure="count"),
        "lake.upload": FilesMetric(source="p", measure="newest_age", unit="days"),
        "lake.cost": DerivedMetric(derive="lake.objects * 2", unit="USD", precision=2),
    },
    rules={},
)
DRIFT = {"value": 205_000, "unit": "objects", "baseline": 172_726, "drift_pct": 18.7, "severity": "high", "reason": "-"}


def row(
    number: int, state: str, metric: str = "lake.objects", facts: Mapping[str, Any] | None = None, **more: Any
) -> Notification:
    usual = {"run_id": 1, "since": NOW - HOUR, "ended_at": None, "ending": None, "sent_at": None, "end_sent_at": None}
    return Notification(id=number, channel="ops", metric=metric, state=state, facts=facts or {}, **{**usual, **more})


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


def body(*rows: Notification, **requests: ApprovalRequest) -> list[str]:
    return compose_message(CONFIG, rows, {request.id: request for request in requests.values()}, NOW).body.splitlines()


# --- one state each --------------------------------------------------------------------------------------


def test_a_held_value_names_its_request_the_version_and_what_to_do() -> None:
    message = compose_message(CONFIG, [row(1, "held:12", facts=DRIFT)], {12: request(12)}, NOW)
    assert message.title == "DIMS: 1 value waits for approval (project nba)"
    assert message.tone == "warning"
    assert message.body.splitlines() == [
        f"lake.objects: 172,726 objects -> 205,000 objects, +18.7 %, high: waits for approval {SINCE}",
        "    dims approvals approve 12 --version 1   (or reject; dims explain lake.objects)",
    ]


def test_a_held_value_shows_its_request_as_it_is_now() -> None:
    """Otherwise people would approve a version whose value they have not seen."""
    changed = request(
        12, version=3, value=206_000, reason="up 19.3 %; 25.0 % from 165000, which a person last accepted"
    )
    line, command = body(row(1, "held:12", facts=DRIFT), r=changed)
    assert "172,726 objects -> 206,000 objects" in line
    assert line.endswith("; 25.0 % from 165000, which a person last accepted")
    assert "approve 12 --version 3 " in command


@pytest.mark.parametrize(
    ("alert", "text", "command"),
    [
        (
            row(1, "drift:major", facts=DRIFT),
            f"lake.objects: 172,726 objects -> 205,000 objects, +18.7 %, high: new baseline {SINCE}",
            "dims explain lake.objects",
        ),
        (
            row(1, "drift:major", "lake.cost", {**DRIFT, "value": 3.14159, "baseline": 2, "unit": "USD"}),
            f"lake.cost: 2 USD -> 3.14 USD, +18.7 %, high: new baseline {SINCE}",
            "dims explain lake.cost",
        ),
        (
            row(1, "limit", "lake.upload", {"value": NOW.isoformat(), "unit": "days", "reason": "3 days old, too old"}),
            f"lake.upload: 3 days old, too old, {SINCE}",
            "dims explain lake.upload",
        ),
        (
            row(1, "attention", "workflow.gap-analysis"),
            f"workflow.gap-analysis: needs attention {SINCE}",
            "dims workflow gap-analysis --last",
        ),
        (
            row(1, "failed", facts={"error": "AccessDenied", "failures": 3}),
            "lake.objects: failed 3 times in a row by 2026-11-22 08:00 UTC: AccessDenied",
            "dims metrics lake.objects",
        ),
        (
            row(1, "failed", "workflow.audit", {"error": "not reached: gone", "failures": 4}),
            "workflow.audit: failed 4 times in a row by 2026-11-22 08:00 UTC: not reached: gone",
            "dims workflow audit --last",
        ),
        (
            row(1, "stale", facts={"as_of": "2026-11-15T07:30:00+00:00", "stale_after": 604_800}),
            "lake.objects: not measured since 2026-11-15 07:30 UTC, longer than 1 week",
            "dims verify --metric lake.objects --update",
        ),
    ],
)
def test_an_active_state_is_a_line_with_a_command_below(alert: Notification, text: str, command: str) -> None:
    assert body(alert) == [text, f"    {command}"]


def ended(
    number: int, state: str, ending: Mapping[str, Any], facts: Mapping[str, Any] | None = None, **more: Any
) -> Notification:
    return row(number, state, facts=facts, **{"sent_at": NOW - HOUR, "ended_at": NOW, "ending": ending, **more})


READS = {"value": 172_800, "unit": "objects"}


@pytest.mark.parametrize(
    ("alert", "text"),
    [
        (ended(1, "limit", READS, DRIFT), "resolved: lake.objects is within its limits again: 172,800 objects"),
        (ended(1, "limit", {}, DRIFT), "resolved: lake.objects is within its limits again"),
        (ended(1, "failed", READS), "resolved: lake.objects was measured again: 172,800 objects"),
        (ended(1, "stale", READS), "resolved: lake.objects was measured again: 172,800 objects"),
        (ended(1, "attention", {"value": "ok"}, metric="workflow.audit"), "resolved: workflow.audit is ok again"),
        (ended(1, "failed", {"retired": True}), "resolved: lake.objects is no longer configured"),
        (ended(1, "failed", READS, sent_at=None), "began and ended: lake.objects was measured again: 172,800 objects"),
    ],
)
def test_an_ended_state_is_one_line(alert: Notification, text: str) -> None:
    message = compose_message(CONFIG, [alert], {}, NOW)
    assert (message.body, message.title, message.tone) == (text, "DIMS: 1 resolved (project nba)", "success")


@pytest.mark.parametrize(
    ("facts", "ending", "text"),
    [
        ({"state": "approved", "decided_by": "ada", "note": "the fill"}, {}, "was approved by ada: the fill"),
        ({"state": "rejected", "decided_by": "ada"}, {}, "was rejected by ada"),
        ({"state": "withdrawn"}, READS, "was withdrawn, the value is now 172,800 objects"),
        ({"state": "expired"}, {"retired": False}, "expired"),
    ],
)
def test_how_a_request_ended(facts: Mapping[str, Any], ending: Mapping[str, Any], text: str) -> None:
    alert = ended(1, "held:12", ending, DRIFT)
    assert body(alert, r=request(12, **facts)) == [
        f"resolved: lake.objects: 172,726 objects -> 205,000 objects (+18.7 %) {text}"
    ]


# --- several ---------------------------------------------------------------------------------------------


def test_the_title_counts_and_the_most_urgent_comes_first() -> None:
    rows = [
        ended(1, "stale", READS),
        row(2, "drift:major", "lake.cost", DRIFT),
        row(3, "drift:major", "lake.objects", DRIFT),
        row(4, "held:12", facts=DRIFT),
        row(5, "failed", facts={"error": "x", "failures": 3}),
    ]
    message = compose_message(CONFIG, rows, {12: request(12)}, NOW)
    assert message.title == "DIMS: 1 value waits for approval, 1 fails, 2 drifted, 1 resolved (project nba)"
    assert message.tone == "failure"
    lines = [line for line in message.body.splitlines() if not line.startswith("    ")]
    assert [line.split(":")[0] for line in lines] == [
        "lake.objects",
        "lake.objects",
        "lake.cost",
        "lake.objects",
        "resolved",
    ]


def test_only_the_newest_state_of_a_kind_is_shown_with_the_number_of_others() -> None:
    rows = [ended(1, "held:11", READS, DRIFT, end_sent_at=NOW, sent_at=None), row(2, "held:12", facts=DRIFT)]
    message = compose_message(CONFIG, rows, {11: request(11, state="superseded"), 12: request(12)}, NOW)
    assert message.title == "DIMS: 1 value waits for approval (project nba)"
    assert "(1 change before that was not sent)" in message.body
    assert "approve 12" in message.body
    assert message.body.count("waits for approval") == 1


def test_a_drift_that_ended_before_it_was_sent_is_sent_all_the_same() -> None:
    calm = row(1, "drift:major", facts=DRIFT, ended_at=NOW, ending={}, end_sent_at=NOW)
    assert "+18.7 %, high: new baseline" in body(calm)[0]


@pytest.mark.parametrize("longest", [600, 2_000, LONGEST])
@pytest.mark.parametrize("number", [1, 3, 30, 500])
def test_what_does_not_fit_is_counted(number: int, longest: int) -> None:
    rows = [row(n, "drift:major", f"lake.m{n}", DRIFT) for n in range(number)]
    message = compose_message(CONFIG, rows, {}, NOW, longest=longest)
    room = longest - len(message.title)
    shown = message.body.count("dims explain lake.m")
    assert message.title == f"DIMS: {number} drifted (project nba)"
    assert len(message.body) <= room
    assert message.body.count(": 172,726") == shown > 0  # complete, or not at all
    assert message.body.endswith(f"and {number - shown} more: dims notify list") == (shown < number)
    assert (
        shown == number or len(message.body) > room - 2 * len(message.body) / shown
    )  # no other entry would have fitted


@pytest.mark.parametrize("longest", [0, 1, 160])
def test_a_service_that_accepts_little_gets_the_first_metric_complete(longest: int) -> None:
    rows = [row(n, "held:12", f"lake.m{n}", DRIFT) for n in range(9)]
    lines = compose_message(CONFIG, rows, {12: request(12)}, NOW, longest=longest).body.splitlines()
    assert lines[1] == "    dims approvals approve 12 --version 1   (or reject; dims explain lake.m0)"
    assert lines[-1].endswith("more: dims notify list")


def test_a_first_metric_that_is_too_long_is_cut() -> None:
    long = request(12, value="v" * 1_000, baseline="b" * 1_000, reason="different; " + "x" * 1_000)
    whole = compose_message(CONFIG, [row(1, "held:12", facts=DRIFT)], {12: long}, NOW).body
    assert len(whole) > 400
    assert compose_message(CONFIG, [row(1, "held:12", facts=DRIFT)], {12: long}, NOW, longest=10).body == whole[:400]


# --- from outside ----------------------------------------------------------------------------------------

NASTY = "<!channel> @everyone [click](https://evil.example) `rm` <b>x</b>\n\x1b[31m\u202eabc"


def test_no_text_from_outside_is_markup() -> None:
    rows = [
        row(1, "failed", facts={"error": NASTY, "failures": 3}),
        row(2, "limit", facts={"value": NASTY, "unit": "", "reason": NASTY}),
        row(3, "drift:major", "lake.text", {**DRIFT, "value": NASTY, "baseline": NASTY}),
        ended(4, "held:12", {"value": NASTY, "unit": ""}, DRIFT),
    ]
    decided = request(12, state="approved", decided_by=NASTY, note=NASTY, value=NASTY)
    for line in body(*rows, r=decided):
        own = line.replace(" -> ", " ")
        assert not set(own) & set("<>`@\n\x1b\u202e")
        assert "](" not in own
    assert "(at)everyone" in "\n".join(body(*rows, r=decided))


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
