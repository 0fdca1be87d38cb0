"""What people read: a title, and a line for each metric with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.formatting import escape_control, format_age, format_drift, format_value, pluralize
from dims_worker.notifications.rules import ATTENTION, DRIFT, FAILED, HELD, LIMIT, STALE
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.notifications import Notification

Tone = Literal["info", "success", "warning", "failure"]
"""Apprise's types of notification: services colour by them."""

LONGEST = 8_000
"""Characters of a message: what does not fit is counted."""
SHORTEST = 400
"""A service that takes less gets this in parts: the first metric, with what to do."""
QUOTED, SHORT = 300, 100
"""Characters of a text from outside, such as the reason of a failure; of one that is a part of a sentence."""
OVER = "over"

_TITLES: dict[str, tuple[str, str]] = {
    HELD: ("value waits for you", "values wait for you"),
    LIMIT: ("beyond its limit", "beyond their limits"),
    ATTENTION: ("needs a look", "need a look"),
    FAILED: ("fails", "fail"),
    STALE: ("stale", "stale"),
    DRIFT: ("drifted", "drifted"),
    OVER: ("resolved", "resolved"),
}
"""What the title counts, in the order of the lines: what needs people first."""
_TONES: dict[str, Tone] = {FAILED: "failure", STALE: "failure", DRIFT: "info", OVER: "success"}
_TONE_ORDER: tuple[Tone, ...] = ("success", "info", "warning", "failure")


@dataclass(frozen=True, slots=True)
class Message:
    title: str
    body: str
    tone: Tone


def compose_message(
    config: Config,
    notifications: Sequence[Notification],
    requests: Mapping[int, ApprovalRequest],
    now: datetime,
    *,
    longest: int = LONGEST,
) -> Message:
    """One message for all that a channel is to be told; `requests` are those of its held values, as they are now.

    Of a metric the newest state of each kind is told; how often it changed before that is said.
    """
    newest: dict[tuple[str, str], list[Notification]] = {}
    for one in notifications:
        newest.setdefault((one.metric, one.kind), []).append(one)
    told = [(OVER if many[-1].end_unsent else many[-1].kind, many) for many in newest.values()]
    told.sort(key=lambda one: list(_TITLES).index(one[0]))
    counted = {what: sum(kind == what for kind, _ in told) for what in _TITLES}
    parts = [f"{n:,} {_TITLES[what][n > 1]}" for what, n in counted.items() if n]
    speaker = _AlertText(config, requests, now)
    tone = max((_TONES.get(kind, "warning") for kind, _ in told), key=_TONE_ORDER.index)
    title = f"DIMS: {', '.join(parts)} (project {sanitize(config.project.name, 40)})"
    room = max(longest - len(title) - 2, SHORTEST)
    return Message(title, _fitted([speaker.lines(many) for _, many in told], room), tone)


def build_test_message(config: Config, channel: str) -> Message:
    """What `dims notify test` sends."""
    body = f"The channel {channel} works. Nothing happened: somebody called `dims notify test`.".replace("`", "'")
    return Message(f"DIMS: a test (project {sanitize(config.project.name, 40)})", body, "info")


def sanitize(text: object, longest: int = QUOTED) -> str:
    """A text from outside as one short line in which no service finds markup, a link with another name, or somebody
    to call: Apprise escapes for services that read HTML or Markdown, others read what they like."""
    plain = escape_control(text).translate(_TAMED).replace("](", "] (")
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


_TAMED = str.maketrans({"<": "(", ">": ")", "`": "'", "@": "(at)"})


def _fitted(entries: Sequence[Sequence[str]], longest: int) -> str:
    """As many whole entries as there is room for, and how many more there are; of the first at least its beginning."""
    whole = "\n".join(line for entry in entries for line in entry)
    if len(whole) <= longest:
        return whole
    lines: list[str] = []
    for number, entry in enumerate(entries):
        more = f"and {len(entries) - number:,} more: dims notify list"
        if len("\n".join([*lines, *entry, more])) > longest:
            return "\n".join([*lines, more] if lines else entry)[:longest]
        lines += entry
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _AlertText:
    """Says one state in a line, and what to do about it in the lines beneath."""

    config: Config
    requests: Mapping[int, ApprovalRequest]
    now: datetime

    def lines(self, many: Sequence[Notification]) -> list[str]:
        """Of one metric and kind, oldest first: the newest is told."""
        one = many[-1]
        before = f" ({pluralize(len(many) - 1, 'change')} before that was not sent)" if len(many) > 1 else ""
        if one.end_unsent:
            return [f"{'resolved' if one.sent_at else 'came and went'}: {self._over(one)}{before}"]
        say: Callable[[Notification], tuple[str, str]] = {
            **{HELD: self._held, LIMIT: self._limit, DRIFT: self._drift},
            **{ATTENTION: self._attention, FAILED: self._failed, STALE: self._stale},
        }[one.kind]
        said, todo = say(one)
        return [f"{one.metric}: {said}{before}", f"    {todo}"]

    def _held(self, one: Notification) -> tuple[str, str]:
        request = self._request(one)
        drift = self._drifted(one, request.value, request.baseline, request.drift_pct, request.severity)
        more = request.reason.partition("; ")[2]  # what the numbers do not say
        said = f"{drift}: waits for you since {_when(request.opened_at)}{f'; {sanitize(more, SHORT)}' if more else ''}"
        choose = f"dims approvals approve {request.id} --version {request.version}"
        return said, f"{choose}   (or reject; dims explain {one.metric})"

    def _drift(self, one: Notification) -> tuple[str, str]:
        facts = one.facts
        drift = self._drifted(one, facts["value"], facts["baseline"], facts["drift_pct"], facts["severity"])
        return f"{drift}: is the baseline since {_when(one.since)}", f"dims explain {one.metric}"

    def _drifted(self, one: Notification, value: Any, baseline: Any, drift: float | None, severity: str) -> str:
        values = f"{self._value(one, baseline)} -> {self._value(one, value)}"
        return f"{values}, {format_drift(value, baseline, drift)}, {severity}"

    def _limit(self, one: Notification) -> tuple[str, str]:
        return f"{sanitize(one.facts['reason'])}, since {_when(one.since)}", f"dims explain {one.metric}"

    def _attention(self, one: Notification) -> tuple[str, str]:
        return f"needs a look since {_when(one.since)}", f"dims workflow {one.metric.removeprefix(WORKFLOW)} --last"

    def _failed(self, one: Notification) -> tuple[str, str]:
        said = f"failed {one.facts['failures']} times in a row by {_when(one.since)}: {sanitize(one.facts['error'])}"
        flow = one.metric.removeprefix(WORKFLOW)
        return said, f"dims metrics {one.metric}" if flow == one.metric else f"dims workflow {flow} --last"

    def _stale(self, one: Notification) -> tuple[str, str]:
        as_of, after = datetime.fromisoformat(one.facts["as_of"]), timedelta(seconds=one.facts["stale_after"])
        return (
            f"not measured since {_when(as_of)}, longer than {format_age(after)}",
            f"dims verify --metric {one.metric} --update",
        )

    def _over(self, one: Notification) -> str:
        ending = one.ending or {}
        if ending.get("retired"):
            return f"{one.metric} is no longer configured"
        if one.kind == HELD:
            return f"{one.metric}: {self._decided(one)}"
        reads = f": {self._value(one, ending['value'])}" if "value" in ending and one.kind != ATTENTION else ""
        said = {LIMIT: "is within its limits again", ATTENTION: "is ok again"}.get(one.kind, "was measured again")
        return f"{one.metric} {said}{reads}"

    def _decided(self, one: Notification) -> str:
        request = self._request(one)
        proposed, baseline = self._value(one, request.value), self._value(one, request.baseline)
        asked = f"{baseline} -> {proposed} ({format_drift(request.value, request.baseline, request.drift_pct)})"
        who = f" by {sanitize(request.decided_by, SHORT)}" if request.decided_by else ""
        why = f": {sanitize(request.note)}" if request.note else ""
        reads = f", it reads {self._value(one, one.ending['value'])}" if one.ending and "value" in one.ending else ""
        done = "expired" if request.state == "expired" else f"was {request.state}"
        return f"{asked} {done}{who}{why}{reads}"

    def _request(self, one: Notification) -> ApprovalRequest:
        assert one.request is not None
        return self.requests[one.request]

    def _value(self, one: Notification, value: Any) -> str:
        unit = one.facts.get("unit") or (one.ending or {}).get("unit")
        return sanitize(format_value(value, unit, self.config.metrics.get(one.metric), self.now), SHORT)


def _when(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
