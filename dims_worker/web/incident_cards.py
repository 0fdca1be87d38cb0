"""Group incidents by story, and write each as a card. The inbox, the overview and a metric's page show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.domain.approvers import approvers_of, may_decide
from dims_worker.domain.decide import SEVERITIES
from dims_worker.domain.health import ACKNOWLEDGED, Health, incident_label
from dims_worker.domain.mutes import Mute
from dims_worker.formatting import format_band, format_utc
from dims_worker.notifications.mutes import mutes_of
from dims_worker.store.incidents import KINDS, RULE, Incident
from dims_worker.text.incidents import (
    incident_facts,
    incident_owner,
    incident_status,
)
from dims_worker.web.identity import Viewer

MAX_DECIDED = 500
"""Incidents that one form acknowledges or closes."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What cards need beside their incidents.

    `viewer` is the person who may decide, or None. `waiting` are the open approval requests and `mutes` the mutes, both
    by metric.
    """

    config: Config
    now: datetime
    viewer: Viewer | None = None
    waiting: Mapping[str, int] = field(default_factory=dict)
    mutes: Mapping[str, Mute] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        connection: Connection,
        config: Config,
        active: Iterable[Incident],
        now: datetime,
        viewer: Viewer | None = None,
    ) -> CardFacts:
        """Read the mutes. `active` are the incidents that are open or acknowledged."""
        waiting = {each.metric: each.request for each in active if each.kind == "approval" and each.request is not None}
        return cls(config, now, viewer, waiting, mutes_of(connection, config, now))


@dataclass(frozen=True, slots=True)
class IncidentCard:
    """An incident as text.

    `request` is the approval request that ends it: that of a held value, or that which a drifted value waits for now.
    `others` are the people who may acknowledge and close it, if the viewer may not.
    """

    incident: Incident
    label: str
    facts: str
    status: str
    since: datetime
    owner: str
    expected: str
    request: int | None = None
    muted: str = ""
    others: str = ""

    @property
    def name(self) -> str:
        """What the incident is about: a metric, or `rule nightly`."""
        return f"rule {self.incident.rule}" if self.incident.rule else self.incident.metric

    @property
    def address(self) -> str | None:
        """The page of the metric. A rule has none."""
        return None if self.incident.metric.startswith(RULE) else self.incident.metric

    @property
    def weight(self) -> tuple[int, int, int]:
        """A sort key: the most important incident is first."""
        incident = self.incident
        severity = SEVERITIES.index(incident.severity) if incident.severity in SEVERITIES else 0
        return (not incident.active, KINDS.index(incident.kind), -severity)

    @classmethod
    def of(cls, facts: CardFacts, incident: Incident) -> IncidentCard:
        config, viewer, mute = facts.config, facts.viewer, facts.mutes.get(incident.metric)
        allowed = viewer is None or may_decide(config, incident.metric, viewer.name)
        decided_there = incident.active and incident.kind in ("approval", "drift")
        return cls(
            incident,
            incident_label(config, incident),
            arrows(incident_facts(config, incident, facts.now)),
            incident_status(incident, facts.now),
            incident.since,
            incident_owner(config, incident) or "",
            _expected(incident),
            facts.waiting.get(incident.metric) if decided_there else None,
            muted_text(mute) if mute and incident.active else "",
            "" if allowed else ", ".join(approvers_of(config, incident.metric)),
        )


def arrows(sentence: str) -> str:
    """Return a sentence of the terminal with the arrows that pages show."""
    return sentence.replace(" -> ", " → ")


def muted_text(mute: Mute) -> str:
    """Return until when and why DIMS sends nothing: `muted until 2026-11-30 18:00 UTC: new disks (mute 3 by ada)`."""
    return f"muted until {format_utc(mute.until)}: {mute.reason} ({mute.origin})"


def _expected(incident: Incident) -> str:
    """Return the band that was expected, as text, or an empty text."""
    if incident.low is None or incident.high is None:
        return ""
    return format_band(incident.low, incident.high)


@dataclass(frozen=True, slots=True)
class StoryCard:
    """The incidents that opened together, the most important first."""

    number: int
    cards: Sequence[IncidentCard]

    @property
    def first(self) -> IncidentCard:
        return self.cards[0]

    @property
    def opened_at(self) -> datetime:
        return min(card.incident.opened_at for card in self.cards)

    @property
    def run(self) -> int | None:
        """The run that opened them. The sweep and a person have none."""
        return next((card.incident.run_id for card in self.cards if card.incident.run_id is not None), None)

    @property
    def metrics(self) -> int:
        return len({card.incident.metric for card in self.cards})

    @property
    def decidable(self) -> list[IncidentCard]:
        """The incidents that are not closed and that no approval request decides."""
        return [card for card in self.cards if card.incident.active and card.request is None]

    @property
    def to_close(self) -> list[IncidentCard]:
        """The incidents that the viewer may acknowledge and close."""
        return [card for card in self.decidable if not card.others][:MAX_DECIDED]

    @property
    def to_acknowledge(self) -> list[IncidentCard]:
        """Those of them that no one has acknowledged."""
        return [card for card in self.to_close if card.incident.state == "open"]

    @property
    def others(self) -> str:
        """The people who may decide about the incidents that the viewer may not decide about."""
        return ", ".join(dict.fromkeys(card.others for card in self.decidable if card.others))

    @property
    def ack_versions(self) -> str:
        """The incidents to acknowledge and the version of each, as a form sends them: `12:1,13:4`."""
        return _versions(self.to_acknowledge)

    @property
    def close_versions(self) -> str:
        return _versions(self.to_close)


def _versions(cards: Iterable[IncidentCard]) -> str:
    return ",".join(f"{card.incident.id}:{card.incident.version}" for card in cards)


@dataclass(frozen=True, slots=True)
class StateLabel:
    """A label of a metric's health, with the address of its request or incident."""

    text: str
    address: str | None = None


def state_labels(config: Config, health: Health) -> list[StateLabel]:
    """Return the labels of a metric's health, each with a link to the incident behind it."""
    addresses = {}
    for incident in health.incidents:
        label = incident_label(config, incident).removesuffix(f", {ACKNOWLEDGED}")
        waits = incident.kind == "approval" and incident.request is not None
        addresses[label] = f"/requests/{incident.request}" if waits else f"/incidents/{incident.id}"
    return [StateLabel(text, addresses.get(text.removesuffix(f", {ACKNOWLEDGED}"))) for text in health.labels]


def group_stories(facts: CardFacts, incidents: Iterable[Incident]) -> list[StoryCard]:
    """Return the stories of these incidents, the newest first."""
    stories: dict[int, list[IncidentCard]] = {}
    for incident in incidents:
        stories.setdefault(incident.story, []).append(IncidentCard.of(facts, incident))
    return [
        StoryCard(number, sorted(cards, key=lambda card: card.weight))
        for number, cards in sorted(stories.items(), reverse=True)
    ]
