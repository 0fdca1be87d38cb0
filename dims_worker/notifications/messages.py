"""Compose the message to a channel: a title, and for each metric a line and what you can do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.decide import IN_FUTURE, drift_pct
from dims_worker.domain.health import ACKNOWLEDGED, WAITS, incident_label
from dims_worker.formatting import (
    escape_control,
    format_band,
    format_drift,
    format_holding_drift,
    format_limit,
    format_utc,
    format_value,
    pluralize,
)
from dims_worker.notifications.rules import ATTENTION, FLAPPING
from dims_worker.numbers import is_number
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.incidents import Incident
from dims_worker.store.notifications import Notification

Tone = Literal["info", "success", "warning", "failure"]
"""Apprise's types of notification. Services choose a colour by them."""

LONGEST = 8_000
"""The most characters of a message. It says how many entries did not fit."""
SHORTEST = 400
"""A service that accepts less gets this many characters in parts: the first metric, and what you can do."""
QUOTED, SHORT = 300, 100
"""The most characters of a text from outside, such as an error, and of one inside a sentence."""
NAMED_METRICS = 3
"""A line about a story names at most this many metrics."""
CALM, ENDED = "calm", "ended"

_TITLES: dict[str, tuple[str, str]] = {
    WAITS: ("value waits for approval", "values wait for approval"),
    "lost": ("lost", "lost"),
    "beyond its limit": ("beyond its limit", "beyond their limits"),
    IN_FUTURE: (IN_FUTURE, IN_FUTURE),
    ATTENTION: ("needs attention", "need attention"),
    "failing": ("failing", "failing"),
    "silent": ("silent", "silent"),
    "stale": ("stale", "stale"),
    "drifted": ("drifted", "drifted"),
    FLAPPING: ("flaps", "flap"),
    CALM: ("calm again", "calm again"),
    ENDED: ("resolved", "resolved"),
}
"""What the title counts, singular and plural, by the label of the incident. The most urgent lines come first."""
_LABELS = {"approval": WAITS, "limit": "beyond its limit", "silence": "silent", "drift": "drifted"}
_LABELS |= {"held": WAITS, "failed": "failing"}
"""The label of a state whose incident is unknown. Before DIMS had incidents, states were called `held` and `failed`."""
_TONES: dict[str, Tone] = {"failing": "failure", "silent": "failure", "stale": "failure"}
_TONES |= {CALM: "success", ENDED: "success"}
_TONE_ORDER: tuple[Tone, ...] = ("success", "info", "warning", "failure")


@dataclass(frozen=True, slots=True)
class Message:
    title: str
    body: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What a message is about, as it is `now`: incidents and requests by number, and how many metrics each story
    affects."""

    now: datetime
    incidents: Mapping[int, Incident] = field(default_factory=dict)
    requests: Mapping[int, ApprovalRequest] = field(default_factory=dict)
    stories: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a message says about one state of a metric, which is the newest of several that were not sent. `unsent`:
    how many changes before it were not."""

    alert: Notification
    kind: str
    unsent: int


def compose_message(
    config: Config,
    notifications: Sequence[Notification],
    facts: MessageFacts,
    *,
    longest: int = LONGEST,
    digest: bool = False,
) -> Message:
    """Compose one message for all notifications of a channel, which come oldest first.

    For each metric and kind, the message shows the newest state, and how many changes before it were not sent. The
    `digest` shows the newest state of each metric.
    """
    formatter = _AlertText(config, facts)
    groups: dict[tuple[str, str], list[Notification]] = {}
    flapping = {each.metric for each in notifications if each.kind == FLAPPING}
    for each in notifications:
        # Of a metric that flaps, only that and what is open is of interest
        merged = digest or (each.metric in flapping and each.ended_at is not None)
        groups.setdefault((each.metric, FLAPPING if merged else each.kind), []).append(each)
    entries = [formatter.entry(alerts) for alerts in groups.values()]
    entries.sort(key=lambda entry: list(_TITLES).index(entry.kind))
    counts = {kind: sum(kind == entry.kind for entry in entries) for kind in _TITLES}
    parts = [f"{n:,} {_TITLES[kind][n > 1]}" for kind, n in counts.items() if n]
    tone = max((_TONES.get(entry.kind, "warning") for entry in entries), key=_TONE_ORDER.index)
    start = "DIMS digest" if digest else "DIMS"
    title = f"{start}: {', '.join(parts)} (project {sanitize(config.project.name, 40)})"
    lines = [formatter.lines(entry) for entry in entries]
    head = _digest_line(config, len({entry.alert.metric for entry in entries})) if digest else ""
    head = "\n".join(filter(None, [head, *formatter.stories(entries)]))
    body_length = max(longest - len(title) - 2, SHORTEST)
    if head and len(head) + 1 <= body_length - SHORTEST:
        return Message(title, f"{head}\n{_fit(lines, body_length - len(head) - 1)}", tone)
    return Message(title, _fit(lines, body_length), tone)


def _digest_line(config: Config, count: int) -> str:
    most = pluralize(config.notify.max_messages_per_day, "message")
    return f"{pluralize(count, 'metric')} reached the limit of {most} in 24 hours. This is the newest state of each."


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
    facts: MessageFacts

    def entry(self, alerts: Sequence[Notification]) -> _Entry:
        """Return the entry of the alerts of one metric, which come oldest first."""
        newest = max(alerts, key=lambda each: (each.ended_at is None, each.changed_at, each.id))
        unsent = sum(each.changes for each in alerts) - 1
        if newest.sent_at is None and newest.end_unsent:
            unsent -= 1  # its line says that it began and ended
        return _Entry(newest, self._kind(newest), max(unsent, 0))

    def _kind(self, alert: Notification) -> str:
        """Return what the title counts the alert as."""
        if alert.end_unsent:
            return CALM if alert.kind == FLAPPING and self._resolution(alert) == "recovered" else ENDED
        return alert.kind if alert.kind in (FLAPPING, ATTENTION) else self._label(alert)

    def _label(self, alert: Notification) -> str:
        """Return the label of the incident of an alert, as every output shows it."""
        incident = self._incident(alert)
        if incident is None:
            return _LABELS.get(str(self._current(alert)["kind"]), str(self._current(alert)["kind"]))
        return incident_label(self.config, incident).removesuffix(f", {ACKNOWLEDGED}")

    def stories(self, entries: Sequence[_Entry]) -> list[str]:
        """Return a line for each story of several metrics: what one run changed."""
        found: dict[int, dict[str, Incident]] = {}
        for entry in entries:
            incident = self._incident(entry.alert)
            if incident is not None and incident.active and self.facts.stories.get(incident.story, 1) > 1:
                found.setdefault(incident.story, {})[incident.metric] = incident
        return [self._story(story, members) for story, members in sorted(found.items())]

    def _story(self, story: int, members: Mapping[str, Incident]) -> str:
        affected, names = self.facts.stories[story], list(members)[:NAMED_METRICS]
        more = [f"{affected - len(names):,} more"] if affected > len(names) else []
        listed = f"{pluralize(affected, 'metric')} ({', '.join([*names, *more])})"
        run = next(iter(members.values())).run_id
        if run is None:
            return f"{listed} are affected at the same time: dims incidents"
        return f"run {run} affects {listed}: dims runs {run}"

    def lines(self, entry: _Entry) -> list[str]:
        """Format an entry."""
        alert = entry.alert
        before = (
            f" ({pluralize(entry.unsent, 'change')} before that {_was(entry.unsent)} not sent)" if entry.unsent else ""
        )
        name = self._name(alert)
        if alert.end_unsent:
            begin = "resolved" if alert.sent_at else "began and ended"
            return [f"{begin}: {name}{self._ended(alert)}{before}"]
        formats: dict[str, Callable[[Notification], tuple[str, str]]] = {
            "approval": self._approval,
            "drift": self._drift,
            "failing": self._failing,
            "stale": self._stale,
            FLAPPING: self._flapping,
            ATTENTION: self._attention,
        }
        text, command = formats.get(alert.kind, self._reason)(alert)
        return [f"{name}: {text}{before}", f"    {command}"]

    def _name(self, alert: Notification) -> str:
        owner = self.config.owners.get(alert.metric)
        return f"{alert.metric} (owner {sanitize(owner, SHORT)})" if owner else alert.metric

    # --- open ---------------------------------------------------------------------------------------------

    def _approval(self, alert: Notification) -> tuple[str, str]:
        request = self._request(alert)
        if request is None:
            return self._reason(alert)
        values = f"{self._value(alert, request.baseline)} -> {self._value(alert, request.value)}"
        drift = f"{values}, {self._holding_drift(request)}, {request.severity}"
        reason = request.reason.partition("; ")[2]  # the part that the numbers do not show
        note = f"; {sanitize(reason, SHORT)}" if reason else ""
        command = f"dims approvals approve {request.id} --version {request.version}"
        return (
            f"{drift}: waits for approval since {format_utc(request.opened_at)}{note}",
            f"{command}   (or reject; dims incidents show {alert.incident})",
        )

    def _holding_drift(self, request: ApprovalRequest) -> str:
        return sanitize(format_holding_drift(request, self.config.metrics.get(request.metric), self.facts.now), SHORT)

    def _drift(self, alert: Notification) -> tuple[str, str]:
        facts = self._current(alert)
        return f"{self._label(alert)}: {self._change(alert)}, {facts['severity']}, {self._since(alert)}", _ack(alert)

    def _change(self, alert: Notification) -> str:
        """Return `40 files -> 1 file, -97.5 %`: the value before the incident, and the latest one."""
        facts = self._current(alert)
        before, value = facts["anchor"], facts["value"]
        # A number needs its unit only once
        shared = is_number(before) and is_number(value)
        old = self._value(alert, before, unit="" if shared else None)
        drift = format_drift(value, before, drift_pct(before, value))
        return f"{old} -> {self._value(alert, value)}, {drift}{self._expected(alert)}"

    def _expected(self, alert: Notification) -> str:
        incident = self._incident(alert)
        if incident is None or incident.low is None or incident.high is None:
            return ""
        return f", expected {format_band(incident.low, incident.high)}"

    def _failing(self, alert: Notification) -> tuple[str, str]:
        workflow = alert.metric.removeprefix(WORKFLOW)
        look = f"dims metrics {alert.metric}" if workflow == alert.metric else f"dims workflow {workflow} --last"
        reason = sanitize(self._current(alert)["reason"])
        return f"failing: {reason}, {self._since(alert)}", f"{look}   # or: {_other(alert)}"

    def _stale(self, alert: Notification) -> tuple[str, str]:
        reason = sanitize(self._current(alert)["reason"])
        return f"stale: {reason}", f"dims verify --metric {alert.metric} --update   # or: {_other(alert)}"

    def _reason(self, alert: Notification) -> tuple[str, str]:
        label = self._label(alert)
        reason = sanitize(self._current(alert)["reason"]).removeprefix(f"{label}: ")
        return f"{label}: {reason}, {self._since(alert)}", _ack(alert)

    def _flapping(self, alert: Notification) -> tuple[str, str]:
        facts = self._current(alert)
        count = pluralize(int(facts["flaps"] or 0) + 1, "time")
        now = f", latest value {self._value(alert, facts['value'])}" if facts["value"] is not None else ""
        quiet = format_limit(self.config.notify.quiet_period)
        return (
            f"flaps ({self._label(alert)}): it began {count} {self._since(alert)}{now}. "
            f"DIMS sends no more about it until it has been calm for {quiet}",
            f"dims incidents show {alert.incident}   # or: dims mute {alert.metric} --for 1d --reason ...",
        )

    def _attention(self, alert: Notification) -> tuple[str, str]:
        command = f"dims workflow {alert.metric.removeprefix(WORKFLOW)} --last"
        return f"needs attention since {format_utc(alert.since)}", command

    # --- ended --------------------------------------------------------------------------------------------

    def _ended(self, alert: Notification) -> str:
        """Return how a state ended, as the rest of a sentence that begins with the metric."""
        incident, resolution = self._incident(alert), self._resolution(alert)
        request = self._request(alert) if alert.kind == "approval" else None
        if resolution == "retired" or (alert.kind == ATTENTION and "value" not in (alert.ending or {})):
            return " is no longer configured"
        if request is not None and request.state != "open":
            return f": {self._decided(alert, request)}"
        if incident is not None and resolution == "expected":
            return self._closed_by(incident)
        if resolution in ("timeout", "expired"):
            return f": incident {alert.incident} was closed after the time that policy sets"
        return self._recovered(alert)

    def _recovered(self, alert: Notification) -> str:
        if alert.kind == ATTENTION:
            return " is ok again"
        if alert.kind == "drift":
            return f" is back after {self._change(alert)}{self._now(alert)}"
        texts = {
            "limit": "is within its limits again",
            "approval": "waits for approval no more",
            "silence": "reports again",
            FLAPPING: f"is calm again: it has not changed for {format_limit(self.config.notify.quiet_period)}",
        }
        return f" {texts.get(alert.kind, 'was measured again')}{self._now(alert)}"

    def _closed_by(self, incident: Incident) -> str:
        reason = f": {sanitize(incident.closing_reason)}" if incident.closing_reason else ""
        return f": incident {incident.id} was closed as expected by {sanitize(incident.closed_by, SHORT)}{reason}"

    def _now(self, alert: Notification) -> str:
        ending = alert.ending or {}
        return f": {self._value(alert, ending['value'])}" if "value" in ending else ""

    def _decided(self, alert: Notification, request: ApprovalRequest) -> str:
        proposed, baseline = self._value(alert, request.value), self._value(alert, request.baseline)
        change = f"{baseline} -> {proposed} ({self._holding_drift(request)})"
        state = "expired" if request.state == "expired" else f"was {request.state}"
        person = f" by {sanitize(request.decided_by, SHORT)}" if request.decided_by else ""
        note = f": {sanitize(request.note)}" if request.note else ""
        ending = alert.ending or {}
        value = f", the value is now {self._value(alert, ending['value'])}" if "value" in ending else ""
        return f"{change} {state}{person}{note}{value}"

    # --- facts --------------------------------------------------------------------------------------------

    def _incident(self, alert: Notification) -> Incident | None:
        return self.facts.incidents.get(alert.incident) if alert.incident is not None else None

    def _resolution(self, alert: Notification) -> str | None:
        incident = self._incident(alert)
        return incident.resolution if incident is not None else None

    def _current(self, alert: Notification) -> Mapping[str, Any]:
        """Return the facts of an alert's incident as they are now, or those of its begin if the incident is unknown."""
        incident, facts = self._incident(alert), alert.facts
        if incident is None:
            reason = facts.get("error") or "see the dashboard"
            usual = {"kind": alert.kind, "value": None, "severity": "high", "reason": reason, "flaps": 0}
            return {**usual, "anchor": facts.get("baseline"), **facts}
        return {name: getattr(incident, name, value) for name, value in alert.facts.items()}

    def _since(self, alert: Notification) -> str:
        incident = self._incident(alert)
        return f"since {format_utc(incident.since if incident else alert.since)}"

    def _request(self, alert: Notification) -> ApprovalRequest | None:
        number = self._current(alert).get("request")
        return self.facts.requests.get(number) if number is not None else None

    def _value(self, alert: Notification, value: Any, *, unit: str | None = None) -> str:
        """Format a value of an alert, in its unit by default."""
        unit = (alert.facts.get("unit") or (alert.ending or {}).get("unit")) if unit is None else unit
        return sanitize(format_value(value, unit, self.config.metrics.get(alert.metric), self.facts.now), SHORT)


def _ack(alert: Notification) -> str:
    """Return how to acknowledge or close the incident of an alert. The shell ignores what follows the first command."""
    if alert.incident is None:
        return f"dims explain {alert.metric}"
    return f"dims incidents ack {alert.incident}   # or: {_close(alert)}; dims incidents show {alert.incident}"


def _close(alert: Notification) -> str:
    return f"dims incidents close {alert.incident} --reason ..."


def _other(alert: Notification) -> str:
    if alert.incident is None:
        return f"dims explain {alert.metric}"
    return f"dims incidents ack {alert.incident}; {_close(alert)}"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
