"""The bars of telling people, with a real worker, a real receiver, kill -9, and what people type."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.events import STREAM, Event
from tests.conftest import Project, Worker, wait_for
from tests.fixtures.receivers import TOKEN, Mailbox, Receiver

Start = Callable[..., Worker]

CONFIG = """
settings: {lease: 4s, sweep: 1s}
sources:
  project: {type: files, path: data}
metrics:
  lake:
    files: {source: project, measure: count, critical: true}
rules:
  scraped: {on: dims.scraper.complete, metrics: ["lake.*"]}
notify:
  channels:
    ops: {url: "${DIMS_NOTIFY_URL:-}"}
    mail: {url: "${DIMS_MAIL_URL:-}", tiers: [approve]}
"""


def scalar(engine: Engine, sql: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql)).scalar()


@pytest.fixture
def told(project: Project, receiver: Receiver) -> Project:
    """A project with ten files, whose channel `ops` is the receiver."""
    project.write({"dims.yaml": CONFIG, **{f"data/{n}": "" for n in range(10)}})
    project.env |= {"DIMS_NOTIFY_URL": receiver.url}
    return project


def measured(engine: Engine) -> int:
    return int(scalar(engine, "SELECT count(*) FROM dims_metrics_history") or 0)


def run(project: Project, engine: Engine) -> None:
    """An event, and the run that it leads to."""
    before = measured(engine)
    with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
        event = Event.new("dims.scraper.complete", "test", now=datetime.now(UTC), id=f"run-{before}")
        redis.xadd(STREAM, {"event": event.to_json()})
    wait_for(lambda: measured(engine) > before)


def everything_sent(engine: Engine) -> bool:
    """To `ops`; where `mail` is off, what is for it waits."""
    unsent = "sent_at IS NULL OR (ended_at IS NOT NULL AND end_sent_at IS NULL)"
    return not scalar(engine, f"SELECT count(*) FROM dims_notifications WHERE channel = 'ops' AND ({unsent})")


def headlines(receiver: Receiver) -> list[str]:
    return [title.partition(" (")[0] for title in receiver.titles]


def drift(project: Project, engine: Engine) -> None:
    """Five more files, and the run that finds them."""
    project.write({f"data/more{n}": "" for n in range(5)})
    run(project, engine)


HELD, RESOLVED = "DIMS: 1 value waits for approval", "DIMS: 1 resolved"


def test_ten_runs_with_the_same_drift_send_one_notification_and_the_eleventh_one_more(
    told: Project, engine: Engine, receiver: Receiver, mailbox: Mailbox, start: Start
) -> None:
    told.env |= {"DIMS_MAIL_URL": mailbox.url}
    told.write({"dims.yaml": CONFIG.replace("sweep: 1s", "sweep: 10m")})  # a run rings itself
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    drift(told, engine)
    for _ in range(9):
        run(told, engine)
    wait_for(lambda: everything_sent(engine))
    assert headlines(receiver) == [HELD]
    assert "lake.files: 10 files -> 15 files, +50.0 %, urgent: waits for approval" in receiver.texts[0]
    for number in range(5):
        (told.folder / f"data/more{number}").unlink()
    run(told, engine)
    wait_for(lambda: len(receiver.took) == 2)
    wait_for(lambda: everything_sent(engine))
    assert headlines(receiver) == [HELD, RESOLVED]
    wait_for(lambda: [mail["Subject"].partition(" (")[0] for mail in mailbox.mails] == [HELD, RESOLVED])
    statuses = "SELECT string_agg(DISTINCT status, ' ') FROM dims_verification_runs"
    assert scalar(engine, statuses) == "ok"
    assert TOKEN not in worker.log.read_text()


def test_an_approval_is_told_by_the_next_sweep(told: Project, engine: Engine, receiver: Receiver, start: Start) -> None:
    start()
    wait_for(lambda: measured(engine) == 1)
    drift(told, engine)
    wait_for(lambda: receiver.took)
    (todo,) = [line.strip() for line in receiver.texts[0].splitlines() if line.startswith(" ")]
    words = todo.partition("   (")[0].split()
    assert words[:3] == ["dims", "approvals", "approve"]
    told.dims(*words[1:], "--as", "ada", "--note", "the new season", check=True)  # as the message says
    wait_for(lambda: len(receiver.took) == 2)
    assert receiver.texts[1] == (
        "resolved: lake.files: 10 files -> 15 files (+50.0 %) was approved by ada: the new season"
    )


def test_kill_9_between_the_record_and_the_sending_and_the_message_comes_once(
    told: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    with engine.begin() as gate:
        gate.execute(text("LOCK TABLE dims_channels IN ACCESS EXCLUSIVE MODE"))  # a sender gets no further
        drift(told, engine)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%dims_channels%'"
        wait_for(lambda: scalar(engine, waits))
        worker.kill()
    assert not everything_sent(engine)
    assert receiver.began == []
    with Redis.from_url(told.env["DIMS_BROKER_URL"]) as redis:
        redis.delete("dims.verify", "dims.ingest")  # whatever bells there were: the broker forgot them too
    start()
    wait_for(lambda: everything_sent(engine))
    run(told, engine)
    assert headlines(receiver) == [HELD]
    assert len(receiver.began) == 1


def test_kill_9_while_it_is_sent_and_the_message_comes_again(
    told: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    receiver.door.clear()
    drift(told, engine)
    wait_for(lambda: receiver.began)
    worker.kill()
    receiver.door.set()
    assert not everything_sent(engine)
    start()
    wait_for(lambda: everything_sent(engine))
    run(told, engine)
    assert len(receiver.began) == 2  # the one before the kill, and the one after: nobody knows of the first
    assert {title.partition(" (")[0] for title in receiver.titles} == {HELD}


def test_a_channel_that_is_down_harms_no_run_and_is_told_when_it_is_up(
    told: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    receiver.status = 500
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    drift(told, engine)
    wait_for(lambda: receiver.began)
    run(told, engine)
    run(told, engine)
    assert scalar(engine, "SELECT count(*) FROM dims_verification_runs WHERE status = 'ok'") == 4
    wait_for(lambda: scalar(engine, "SELECT error FROM dims_channels WHERE lease_until IS NULL"))
    assert "JSON: it answered HTTP 500" in worker.log.read_text()
    receiver.status = 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_channels SET not_before = clock_timestamp()"))
    wait_for(lambda: everything_sent(engine))
    assert headlines(receiver) == [HELD]
    assert TOKEN not in worker.log.read_text()


def test_a_metric_that_nobody_measures_is_noticed_by_the_sweep(
    told: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    start()
    wait_for(lambda: measured(engine) == 1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET as_of = as_of - interval '8 d'"))
    wait_for(lambda: headlines(receiver) == ["DIMS: 1 stale"])
    assert "dims verify --metric lake.files --update" in receiver.texts[0]
    run(told, engine)
    wait_for(lambda: headlines(receiver) == ["DIMS: 1 stale", RESOLVED])


# --- what people type ------------------------------------------------------------------------------------


def test_without_a_worker_rows_wait_and_send_sends_them(told: Project, engine: Engine, receiver: Receiver) -> None:
    told.dims("verify", "--update", check=True)
    told.write({f"data/more{n}": "" for n in range(5)})
    assert told.dims("verify", "--update").returncode == 1  # held
    assert receiver.began == []
    listed = told.dims("notify", "list", check=True).stdout
    assert "ops: last message never; 1 notification to be sent" in listed
    assert "mail: off, its url is empty; 1 notification to be sent" in listed
    assert "lake.files" in listed
    assert "held:1" in listed
    receiver.status = 500
    done = told.dims("notify", "send")
    assert (done.returncode, done.stdout) == (
        3,
        "ops: not sent: JSON: it answered HTTP 500\nmail: off, its url is empty\n",
    )
    assert "ops: failed 1 time, again in " in told.dims("notify", "list", check=True).stdout
    receiver.status = 200
    done = told.dims("notify", "send")
    assert (done.returncode, done.stdout) == (0, "ops: 1 notification sent in 1 message\nmail: off, its url is empty\n")
    assert headlines(receiver) == [HELD]
    assert told.dims("notify", "send", "ops", check=True).stdout == "ops: nothing to send\n"
    shown = told.dims("notify", "list", "--json", check=True).stdout
    facts = json.loads(shown)
    assert [(one["channel"], one["on"], one["unsent"]) for one in facts["channels"]] == [
        ("mail", False, 1),
        ("ops", True, 0),
    ]
    assert {(one["channel"], one["state"], one["ended_at"]) for one in facts["notifications"]} == {
        ("ops", "held:1", None), ("mail", "held:1", None),
    }  # fmt: skip
    assert TOKEN not in shown + listed


def test_a_test_goes_through_each_channel(told: Project, receiver: Receiver, mailbox: Mailbox) -> None:
    done = told.dims("notify", "test")
    assert (done.returncode, done.stdout) == (0, "ops: sent, JSON\nmail: off, its url is empty\n")
    told.env["DIMS_MAIL_URL"] = mailbox.url
    assert told.dims("notify", "test", "mail", check=True).stdout == "mail: sent, E-Mail\n"
    assert (len(receiver.took), len(mailbox.mails)) == (1, 1)
    assert mailbox.mails[0]["Subject"].startswith("DIMS: test message (project ")
    receiver.status = 403
    done = told.dims("notify", "test")
    assert (done.returncode, done.stdout) == (3, "ops: not sent: JSON: it answered HTTP 403\nmail: sent, E-Mail\n")
    told.env["DIMS_NOTIFY_URL"] = f"nothing://{TOKEN}"
    done = told.dims("--debug", "notify", "test")
    assert done.returncode == 3
    assert "ops: not sent: Apprise does not know its URL" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["test", "opps"], "no channel is called opps; there are ops, mail"),
        (["send", "opps"], "no channel is called opps"),
    ],
)
def test_a_channel_that_there_is_not(told: Project, arguments: list[str], said: str) -> None:
    done = told.dims("notify", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_named_channel_that_is_off_is_a_failure(told: Project) -> None:
    assert told.dims("notify", "test", "mail").returncode == 3


def test_without_a_channel_it_is_said_what_to_write(project: Project) -> None:
    project.write({"dims.yaml": "sources: {project: {type: files, path: .}}\n"})
    done = project.dims("notify", "test")
    assert done.returncode == 2
    assert "write `notify: {channels: …}`" in done.stderr


def test_the_configuration_is_checked_and_shown_without_the_url(told: Project) -> None:
    checked = told.dims("config", "check", check=True).stdout
    assert "the channel mail is off: its url is empty\n" in checked
    assert "ops" not in checked
    shown = told.dims("config", "show", check=True).stdout
    assert TOKEN not in shown
    channels = json.loads(shown)["notify"]["channels"]
    assert (channels["ops"]["url"], channels["mail"]["url"]) == ("**********", "")
    assert channels["mail"]["tiers"] == ["approve"]
    told.env["DIMS_NOTIFY_URL"] = TOKEN
    wrong = told.dims("config", "check")
    assert wrong.returncode == 2
    assert "notify.channels.ops.url: is no Apprise URL" in wrong.stderr
    assert TOKEN not in wrong.stdout + wrong.stderr
