"""Compose the message to a channel: a title, and for each metric a line and what you can do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.formatting import (
    escape_control,
    format_drift,
    format_holding_drift,
    format_limit,
    format_utc,
    format_value,
    pluralize,
)
from dims_worker.notifications.rules import ATTENTION, DRIFT, FAILED, HELD, LIMIT, STALE
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.notifications import Notification

Tone = Literal["info", "success", "warning", "failure"]
"""Apprise's types of notification. Services choose a colour by them."""

LONGEST = 8_000
"""The most characters of a message. It says how many entries did not fit."""
SHORTEST = 400
"""A service that accepts less gets this many characters in parts: the first metric, and what you can do."""
QUOTED, SHORT = 300, 100
"""The most characters of a text from outside, such as an error, and of one inside a sentence."""
ENDED = "ended"

_TITLES: dict[str, tuple[str, str]] = {
    HELD: ("value waits for approval", "values wait for approval"),
    LIMIT: ("beyond its limit", "beyond their limits"),
    ATTENTION: ("needs attention", "need attention"),
    FAILED: ("fails", "fail"),
    STALE: ("stale", "stale"),
    DRIFT: ("drifted", "drifted"),
    ENDED: ("resolved", "resolved"),
}
"""What the title counts, singular and plural, in the order of the lines: the most urgent first."""
_TONES: dict[str, Tone] = {FAILED: "failure", STALE: "failure", DRIFT: "info", ENDED: "success"}
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
    """Compose one message for all notifications of a channel. `requests`: those of its held values, as they are now.

    For each metric and kind, the message shows the newest state, and how many changes before it were not sent.
    """
    by_kind: dict[tuple[str, str], list[Notification]] = {}
    for alert in notifications:
        by_kind.setdefault((alert.metric, alert.kind), []).append(alert)
    entries = [(ENDED if alerts[-1].end_unsent else alerts[-1].kind, alerts) for alerts in by_kind.values()]
    entries.sort(key=lambda entry: list(_TITLES).index(entry[0]))
    counts = {kind: sum(kind == other for other, _ in entries) for kind in _TITLES}
    parts = [f"{n:,} {_TITLES[kind][n > 1]}" for kind, n in counts.items() if n]
    formatter = _AlertText(config, requests, now)
    tone = max((_TONES.get(kind, "warning") for kind, _ in entries), key=_TONE_ORDER.index)
    title = f"DIMS: {', '.join(parts)} (project {sanitize(config.project.name, 40)})"
    body_length = max(longest - len(title) - 2, SHORTEST)
    return Message(title, _fit([formatter.lines(alerts) for _, alerts in entries], body_length), tone)


def build_test_message(config: Config, channel: str) -> Message:
    """Build the message that `dims notify test` sends."""
    body = f"The channel {channel} works. Nothing happened: this is a test, sent with 'dims notify test'."
    return Message(f"DIMS: test message (project {sanitize(config.project.name, 40)})", body, "info")


def sanitize(text: object, longest: int = QUOTED) -> str:
    """Return a text from outside as one short line without markup, links or mentions in any service's format.

    Apprise escapes for services that read HTML or Markdown. Other services have formats of their own.
    """
    plain = escape_control(text).translate(_HARMLESS).replace("](", "] (")
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


_HARMLESS = str.maketrans({"<": "(", ">": ")", "`": "'", "@": "(at)"})


def _fit(entries: Sequence[Sequence[str]], longest: int) -> str:
    """Join as many whole entries as fit, and say how many more there are. The first one is cut if it does not fit."""
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
    """Formats one state as a line, and what you can do as a second line."""

    config: Config
    requests: Mapping[int, ApprovalRequest]
    now: datetime

    def lines(self, alerts: Sequence[Notification]) -> list[str]:
        """Format the newest of the alerts of one metric and kind, which come oldest first."""
        alert = alerts[-1]
        before = f" ({pluralize(len(alerts) - 1, 'change')} before that was not sent)" if len(alerts) > 1 else ""
        if alert.end_unsent:
            return [f"{'resolved' if alert.sent_at else 'began and ended'}: {self._ended(alert)}{before}"]
        formats: dict[str, Callable[[Notification], tuple[str, str]]] = {
            HELD: self._held,
            LIMIT: self._limit,
            DRIFT: self._drift,
            ATTENTION: self._attention,
            FAILED: self._failed,
            STALE: self._stale,
        }
        text, command = formats[alert.kind](alert)
        return [f"{alert.metric}: {text}{before}", f"    {command}"]

    def _held(self, alert: Notification) -> tuple[str, str]:
        request = self._request(alert)
        values = f"{self._value(alert, request.baseline)} -> {self._value(alert, request.value)}"
        drift = f"{values}, {self._holding_drift(request)}, {request.severity}"
        reason = request.reason.partition("; ")[2]  # the part that the numbers do not show
        note = f"; {sanitize(reason, SHORT)}" if reason else ""
        command = f"dims approvals approve {request.id} --version {request.version}"
        return (
            f"{drift}: waits for approval since {format_utc(request.opened_at)}{note}",
            f"{command}   (or reject; dims explain {alert.metric})",
        )

    def _holding_drift(self, request: ApprovalRequest) -> str:
        return sanitize(format_holding_drift(request, self.config.metrics.get(request.metric), self.now), SHORT)

    def _drift(self, alert: Notification) -> tuple[str, str]:
        facts = alert.facts
        drift = self._drifted(alert, facts["value"], facts["baseline"], facts["drift_pct"], facts["severity"])
        return f"{drift}: new baseline since {format_utc(alert.since)}", f"dims explain {alert.metric}"

    def _drifted(self, alert: Notification, value: Any, baseline: Any, drift: float | None, severity: str) -> str:
        values = f"{self._value(alert, baseline)} -> {self._value(alert, value)}"
        return f"{values}, {format_drift(value, baseline, drift)}, {severity}"

    def _limit(self, alert: Notification) -> tuple[str, str]:
        reason = sanitize(alert.facts["reason"])
        return f"{reason}, since {format_utc(alert.since)}", f"dims explain {alert.metric}"

    def _attention(self, alert: Notification) -> tuple[str, str]:
        command = f"dims workflow {alert.metric.removeprefix(WORKFLOW)} --last"
        return f"needs attention since {format_utc(alert.since)}", command

    def _failed(self, alert: Notification) -> tuple[str, str]:
        failures, error = alert.facts["failures"], sanitize(alert.facts["error"])
        workflow = alert.metric.removeprefix(WORKFLOW)
        return (
            f"failed {failures} times in a row by {format_utc(alert.since)}: {error}",
            f"dims metrics {alert.metric}" if workflow == alert.metric else f"dims workflow {workflow} --last",
        )

    def _stale(self, alert: Notification) -> tuple[str, str]:
        as_of = datetime.fromisoformat(alert.facts["as_of"])
        stale_after = timedelta(seconds=alert.facts["stale_after"])
        return (
            f"not measured since {format_utc(as_of)}, longer than {format_limit(stale_after)}",
            f"dims verify --metric {alert.metric} --update",
        )

    def _ended(self, alert: Notification) -> str:
        ending = alert.ending or {}
        if ending.get("retired"):
            return f"{alert.metric} is no longer configured"
        if alert.kind == HELD:
            return f"{alert.metric}: {self._decided(alert)}"
        value = f": {self._value(alert, ending['value'])}" if "value" in ending and alert.kind != ATTENTION else ""
        texts = {LIMIT: "is within its limits again", ATTENTION: "is ok again"}
        return f"{alert.metric} {texts.get(alert.kind, 'was measured again')}{value}"

    def _decided(self, alert: Notification) -> str:
        request = self._request(alert)
        proposed, baseline = self._value(alert, request.value), self._value(alert, request.baseline)
        change = f"{baseline} -> {proposed} ({self._holding_drift(request)})"
        state = "expired" if request.state == "expired" else f"was {request.state}"
        person = f" by {sanitize(request.decided_by, SHORT)}" if request.decided_by else ""
        note = f": {sanitize(request.note)}" if request.note else ""
        ending = alert.ending or {}
        value = f", the value is now {self._value(alert, ending['value'])}" if "value" in ending else ""
        return f"{change} {state}{person}{note}{value}"

    def _request(self, alert: Notification) -> ApprovalRequest:
        assert alert.request is not None
        return self.requests[alert.request]

    def _value(self, alert: Notification, value: Any) -> str:
        unit = alert.facts.get("unit") or (alert.ending or {}).get("unit")
        return sanitize(format_value(value, unit, self.config.metrics.get(alert.metric), self.now), SHORT)
