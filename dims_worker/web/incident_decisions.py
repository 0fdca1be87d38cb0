"""Acknowledge and close incidents, the same for pages and the API."""

from __future__ import annotations

from typing import Literal

from dims_worker.domain.approvers import Decider
from dims_worker.incidents.decisions import acknowledge_incident, close_incident
from dims_worker.web.context import WebContext
from dims_worker.web.identity import Viewer

Choice = Literal["ack", "close"]


def decide_incident(site: WebContext, viewer: Viewer, choice: Choice, number: int, version: int, text: str) -> None:
    """Acknowledge or close the version of an incident that the viewer saw. `text` is the note, or the reason.

    To close the incident of a held value approves its request. Raises NotFound, NotAllowed, DatabaseBusy, UsageError
    for a missing reason, and Refused if the incident has changed or is closed.
    """
    person = Decider(viewer.name, viewer.known_by)
    if choice == "ack":
        acknowledge_incident(site.engine, site.config, number, version=version, person=person, note=text or None)
        return
    close_incident(site.engine, site.config, number, version=version, person=person, reason=text)
