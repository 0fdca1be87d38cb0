"""Test the configuration of `dims init` on the real path of events: ordinary work is quiet, and a loss is not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from dims_worker.approvals.decisions import Choice, decide_request
from dims_worker.config import Config, load_config
from dims_worker.domain.approvers import Decider
from dims_worker.domain.plan import Planner
from dims_worker.events import FILES_CHANGED, GIT_COMMIT, Event
from dims_worker.incidents.decisions import close_incident
from dims_worker.notifications.sender import send_pending
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import measure_due
from dims_worker.store.engine import transaction
from dims_worker.store.incidents import Incident, open_incidents
from tests.conftest import Project
from tests.fixtures.ordinary_work import OrdinaryWork
from tests.fixtures.receivers import Receiver
from tests.integration.web.conftest import Visit, visit

__all__ = ["visit"]  # a fixture

COMMITS, DAYS, UPLOADS, COMMITS_PER_EVENT = 100, 7, 5, 5
CHANNEL = """
notify:
  channels:
    me: {url: "${DIMS_NOTIFY_URL:-}"}
"""


@dataclass
class Reaction:
    """What happens after an event: it is stored, the due metrics are measured, and messages are sent."""

    project: Project
    engine: Engine
    config: Config = field(init=False)
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.config = load_config(None, self.project.env, self.project.folder)
        with transaction(self.engine) as connection:
            register_config(connection, self.config)
        self.measure()

    def store(self, kind: str, paths: Sequence[str]) -> None:
        data = {"root": str(self.project.folder), "paths": list(paths)}
        event = Event.new(kind, "test", now=datetime.now(UTC), data=data, id=f"{kind}-{next(self._ids)}")
        with transaction(self.engine) as connection:
            store_events(connection, Planner(self.config), [ReceivedEnvelope("", event.to_json().encode())])

    def measure(self) -> None:
        for source in self.config.sources:
            measure_due(self.engine, self.config, source, at_once=True)
        send_pending(self.engine, self.config, "me", at_once=True)

    def count(self, table: str) -> int:
        with transaction(self.engine) as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


@pytest.fixture
def protected(project: Project, receiver: Receiver) -> Project:
    """Return a project with code, documents and data, in which someone has run `dims init`, and added a channel."""
    project.env |= {"DIMS_NOTIFY_URL": receiver.url}
    work = OrdinaryWork(project.folder, seed=7)
    for _ in range(4):
        work.add_module()
        work.document()
    project.write({f"data/games/{n}.csv": f"{n}\n" * 40 for n in range(40)})
    project.dims("init", check=True)
    file = project.folder / "dims.yaml"
    file.write_text(file.read_text() + CHANNEL)
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "Begin")
    return project


def test_a_first_week_causes_no_message_and_no_request(protected: Project, engine: Engine, receiver: Receiver) -> None:
    work = OrdinaryWork(protected.folder, seed=7)
    reaction = Reaction(protected, engine)
    changed: list[str] = []
    for number in range(1, COMMITS + 1):
        changed += work.commit()
        if number % (COMMITS // DAYS) == 0:
            reaction.store(FILES_CHANGED, [path for _ in range(UPLOADS) for path in work.upload()])
        if number % COMMITS_PER_EVENT == 0:
            reaction.store(GIT_COMMIT, changed)
            reaction.measure()
            changed = []
    assert receiver.received == []
    assert reaction.count("dims_approval_requests") == 0
    assert reaction.count("dims_notifications") == 0
    assert reaction.count("dims_incidents") == 0
    done = protected.dims("verify", "--update")
    assert (done.returncode, "held" in done.stdout) == (0, False), done.stdout


# --- a loss ---------------------------------------------------------------------------------------------

LOST = [f"data/games/{n}.csv" for n in range(20)]
HALVED = {"data.files", "data.bytes", "project.files"}


def lose_half(project: Project) -> None:
    """Delete half of the data files in a commit."""
    project.git("rm", "-q", *LOST)
    project.git("commit", "-q", "-m", "Tidy up")


def restore_and_measure(project: Project, reaction: Reaction) -> None:
    begin = project.git("log", "--format=%H", "-1", "--grep=Begin")
    project.git("checkout", "-q", begin, "--", *LOST)
    reaction.store(FILES_CHANGED, LOST)
    reaction.measure()


def active(engine: Engine) -> dict[tuple[str, str], Incident]:
    """Return the open and acknowledged incidents, by metric and kind."""
    with transaction(engine) as connection:
        return {(each.metric, each.kind): each for each in open_incidents(connection)}


def assert_held(reaction: Reaction) -> None:
    found = active(reaction.engine)
    assert {metric for metric, _ in found} >= HALVED
    assert {kind for _, kind in found} == {"approval"}


def assert_over(project: Project, reaction: Reaction) -> None:
    assert active(reaction.engine) == {}
    assert reaction.count("dims_approval_requests WHERE state = 'open'") == 0
    project.dims("verify", "--update", check=True)


def more_events(project: Project, reaction: Reaction, number: int) -> None:
    work = OrdinaryWork(project.folder, seed=2)
    for _ in range(number):
        reaction.store(GIT_COMMIT, work.add_module())
        reaction.measure()


def edit(project: Project, reaction: Reaction) -> None:
    reaction.store(GIT_COMMIT, OrdinaryWork(project.folder, seed=2).edit())
    reaction.measure()


@pytest.mark.parametrize("by", ["an event", "verify --update"])
def test_a_loss_of_half_of_the_data_is_held_until_it_is_restored(
    by: str, protected: Project, engine: Engine, receiver: Receiver, visit: Visit
) -> None:
    reaction = Reaction(protected, engine)
    lose_half(protected)
    if by == "an event":
        reaction.store(GIT_COMMIT, LOST)
    else:
        done = protected.dims("verify", "--update")
        assert done.returncode == 1
        assert "data.files" in done.stdout
    reaction.measure()
    assert_held(reaction)
    status = json.loads(protected.dims("status", "--json").stdout)
    assert status["numbers"]["requests"] >= len(HALVED)
    assert "data.files" in visit(reaction.config, "ada").get("/").text
    assert len(receiver.accepted) == 1
    assert "data.files: 40 files -> 20 files, -50.0 %" in receiver.texts[0]
    more_events(protected, reaction, 10 if by == "an event" else 1)
    assert_held(reaction)
    assert protected.dims("verify", "--update").returncode == 1
    assert "data.files" in visit(reaction.config, "ada").get("/").text
    assert len(receiver.accepted) == 1
    restore_and_measure(protected, reaction)
    assert_over(protected, reaction)
    assert len(receiver.accepted) == 2  # one more says that it is over


@pytest.mark.parametrize("decision", ["approved", "rejected"])
def test_a_person_ends_a_loss(decision: Choice, protected: Project, engine: Engine) -> None:
    reaction = Reaction(protected, engine)
    lose_half(protected)
    reaction.store(GIT_COMMIT, LOST)
    reaction.measure()
    assert_held(reaction)
    ada, why = Decider("ada", "option"), "the old season"
    for incident in active(engine).values():
        decide_request(engine, reaction.config, str(incident.request), decision, version=1, person=ada, note=why)
    edit(protected, reaction)
    if decision == "rejected":  # the files are still lost, until a person closes the incidents
        left = active(engine)
        assert {metric for metric, _ in left} >= HALVED
        assert {(kind, each.state) for (_, kind), each in left.items()} == {("drift", "acknowledged")}
        for incident in left.values():
            close_incident(engine, reaction.config, incident.id, version=None, person=ada, reason=why)
        edit(protected, reaction)
    assert_over(protected, reaction)
