"""Test notifications with a worker, receivers, SIGKILL, and the commands of `dims notify`."""

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
def notified(project: Project, receiver: Receiver) -> Project:
    """Return a project with ten files, whose channel `ops` is the receiver."""
    project.write({"dims.yaml": CONFIG, **{f"data/{n}": "" for n in range(10)}})
    project.env |= {"DIMS_NOTIFY_URL": receiver.url}
    return project


def measured(engine: Engine) -> int:
    return int(scalar(engine, "SELECT count(*) FROM dims_metrics_history") or 0)


def run(project: Project, engine: Engine) -> None:
    """Send an event, and wait for its run."""
    before = measured(engine)
    with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
        event = Event.new("dims.scraper.complete", "test", now=datetime.now(UTC), id=f"run-{before}")
        redis.xadd(STREAM, {"event": event.to_json()})
    wait_for(lambda: measured(engine) > before)


def everything_sent(engine: Engine) -> bool:
    """Return whether everything for `ops` is sent. What is for `mail` waits while `mail` is off."""
    unsent = "sent_at IS NULL OR (ended_at IS NOT NULL AND end_sent_at IS NULL)"
    return not scalar(engine, f"SELECT count(*) FROM dims_notifications WHERE channel = 'ops' AND ({unsent})")


def headlines(receiver: Receiver) -> list[str]:
    return [title.partition(" (")[0] for title in receiver.titles]


def drift(project: Project, engine: Engine) -> None:
    """Add five files, and measure them."""
    project.write({f"data/more{n}": "" for n in range(5)})
    run(project, engine)


HELD, RESOLVED = "DIMS: 1 value waits for approval", "DIMS: 1 resolved"


def test_ten_runs_with_the_same_drift_send_one_message_and_the_recovery_another(
    notified: Project, engine: Engine, receiver: Receiver, mailbox: Mailbox, start: Start
) -> None:
    notified.env |= {"DIMS_MAIL_URL": mailbox.url}
    notified.write({"dims.yaml": CONFIG.replace("sweep: 1s", "sweep: 10m")})  # a run sends its own wake-up
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    drift(notified, engine)
    for _ in range(9):
        run(notified, engine)
    wait_for(lambda: everything_sent(engine))
    assert headlines(receiver) == [HELD]
    assert "lake.files: 10 files -> 15 files, +50.0 %, urgent: waits for approval" in receiver.texts[0]
    for number in range(5):
        (notified.folder / f"data/more{number}").unlink()
    run(notified, engine)
    wait_for(lambda: len(receiver.accepted) == 2)
    wait_for(lambda: everything_sent(engine))
    assert headlines(receiver) == [HELD, RESOLVED]
    wait_for(lambda: [mail["Subject"].partition(" (")[0] for mail in mailbox.mails] == [HELD, RESOLVED])
    statuses = "SELECT string_agg(DISTINCT status, ' ') FROM dims_verification_runs"
    assert scalar(engine, statuses) == "ok"
    assert TOKEN not in worker.log.read_text()


def test_an_approval_is_reported_by_the_next_sweep(
    notified: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    start()
    wait_for(lambda: measured(engine) == 1)
    drift(notified, engine)
    wait_for(lambda: receiver.accepted)
    (instruction,) = [line.strip() for line in receiver.texts[0].splitlines() if line.startswith(" ")]
    words = instruction.partition("   (")[0].split()
    assert words[:3] == ["dims", "approvals", "approve"]
    notified.dims(*words[1:], "--as", "ada", "--note", "the new season", check=True)  # as the message instructs
    wait_for(lambda: len(receiver.accepted) == 2)
    assert receiver.texts[1] == (
        "resolved: lake.files: 10 files -> 15 files (+50.0 %) was approved by ada: the new season"
    )


def test_after_a_kill_before_sending_the_message_is_sent_once(
    notified: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    with engine.begin() as gate:
        gate.execute(text("LOCK TABLE dims_channels IN ACCESS EXCLUSIVE MODE"))  # a sender must wait for this lock
        drift(notified, engine)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%dims_channels%'"
        )
        wait_for(lambda: scalar(engine, waiting))
        worker.kill()
    assert not everything_sent(engine)
    assert receiver.received == []
    with Redis.from_url(notified.env["DIMS_BROKER_URL"]) as redis:
        redis.delete("dims.verify", "dims.ingest")  # the broker loses the wake-ups too
    start()
    wait_for(lambda: everything_sent(engine))
    run(notified, engine)
    assert headlines(receiver) == [HELD]
    assert len(receiver.received) == 1


def test_after_a_kill_during_sending_the_message_is_sent_again(
    notified: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    receiver.gate.clear()
    drift(notified, engine)
    wait_for(lambda: receiver.received)
    worker.kill()
    receiver.gate.set()
    assert not everything_sent(engine)
    start()
    wait_for(lambda: everything_sent(engine))
    run(notified, engine)
    assert len(receiver.received) == 2  # before and after the kill: no record says that the first one arrived
    assert {title.partition(" (")[0] for title in receiver.titles} == {HELD}


def test_a_channel_that_is_down_fails_no_run_and_gets_the_message_later(
    notified: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    receiver.status = 500
    worker = start()
    wait_for(lambda: measured(engine) == 1)
    drift(notified, engine)
    wait_for(lambda: receiver.received)
    run(notified, engine)
    run(notified, engine)
    assert scalar(engine, "SELECT count(*) FROM dims_verification_runs WHERE status = 'ok'") == 4
    wait_for(lambda: scalar(engine, "SELECT error FROM dims_channels WHERE lease_until IS NULL"))
    assert "JSON: it answered HTTP 500" in worker.log.read_text()
    receiver.status = 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_channels SET not_before = clock_timestamp()"))
    wait_for(lambda: everything_sent(engine))
    assert headlines(receiver) == [HELD]
    assert TOKEN not in worker.log.read_text()


def test_a_stale_metric_is_reported_by_the_sweep(
    notified: Project, engine: Engine, receiver: Receiver, start: Start
) -> None:
    start()
    wait_for(lambda: measured(engine) == 1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET as_of = as_of - interval '8 d'"))
    wait_for(lambda: headlines(receiver) == ["DIMS: 1 stale"])
    assert "dims verify --metric lake.files --update" in receiver.texts[0]
    run(notified, engine)
    wait_for(lambda: headlines(receiver) == ["DIMS: 1 stale", RESOLVED])


# --- commands -------------------------------------------------------------------------------------------


def test_without_a_worker_send_sends_what_waits(notified: Project, engine: Engine, receiver: Receiver) -> None:
    notified.dims("verify", "--update", check=True)
    notified.write({f"data/more{n}": "" for n in range(5)})
    assert notified.dims("verify", "--update").returncode == 1  # held
    assert receiver.received == []
    listed = notified.dims("notify", "list", check=True).stdout
    assert "ops: last message never; 1 notification to be sent" in listed
    assert "mail: off, its url is empty; 1 notification to be sent" in listed
    assert "lake.files" in listed
    assert "approval:1" in listed
    receiver.status = 500
    done = notified.dims("notify", "send")
    assert (done.returncode, done.stdout) == (
        3,
        "ops: not sent: JSON: it answered HTTP 500\nmail: off, its url is empty\n",
    )
    assert "ops: failed 1 time, retry in " in notified.dims("notify", "list", check=True).stdout
    receiver.status = 200
    done = notified.dims("notify", "send")
    assert (done.returncode, done.stdout) == (0, "ops: 1 notification sent in 1 message\nmail: off, its url is empty\n")
    assert headlines(receiver) == [HELD]
    assert notified.dims("notify", "send", "ops", check=True).stdout == "ops: nothing to send\n"
    shown = notified.dims("notify", "list", "--json", check=True).stdout
    facts = json.loads(shown)
    assert [(row["channel"], row["on"], row["unsent"]) for row in facts["channels"]] == [
        ("mail", False, 1),
        ("ops", True, 0),
    ]
    states = {(row["channel"], row["state"], row["ended_at"]) for row in facts["notifications"]}
    assert states == {("ops", "approval:1", None), ("mail", "approval:1", None)}
    assert TOKEN not in shown + listed


def test_a_test_message_goes_through_each_channel(notified: Project, receiver: Receiver, mailbox: Mailbox) -> None:
    done = notified.dims("notify", "test")
    assert (done.returncode, done.stdout) == (0, "ops: sent, JSON\nmail: off, its url is empty\n")
    notified.env["DIMS_MAIL_URL"] = mailbox.url
    assert notified.dims("notify", "test", "mail", check=True).stdout == "mail: sent, E-Mail\n"
    assert (len(receiver.accepted), len(mailbox.mails)) == (1, 1)
    assert mailbox.mails[0]["Subject"].startswith("DIMS: test message (project ")
    receiver.status = 403
    done = notified.dims("notify", "test")
    assert (done.returncode, done.stdout) == (3, "ops: not sent: JSON: it answered HTTP 403\nmail: sent, E-Mail\n")
    notified.env["DIMS_NOTIFY_URL"] = f"nothing://{TOKEN}"
    done = notified.dims("--debug", "notify", "test")
    assert done.returncode == 3
    assert "ops: not sent: Apprise does not know its URL" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["test", "opps"], "no channel is called opps. The channels are ops, mail."),
        (["send", "opps"], "no channel is called opps"),
    ],
)
def test_an_unknown_channel_is_wrong_usage(notified: Project, arguments: list[str], expected: str) -> None:
    done = notified.dims("notify", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr


def test_a_named_channel_that_is_off_is_a_failure(notified: Project) -> None:
    assert notified.dims("notify", "test", "mail").returncode == 3


def test_without_a_channel_the_error_shows_what_to_write(project: Project) -> None:
    project.write({"dims.yaml": "sources: {project: {type: files, path: .}}\n"})
    done = project.dims("notify", "test")
    assert done.returncode == 2
    assert "declares no channel. Write one under `notify: {channels: ...}`." in done.stderr


def test_config_check_and_show_hide_the_url(notified: Project) -> None:
    checked = notified.dims("config", "check", check=True).stdout
    assert "the channel mail is off: its url is empty\n" in checked
    assert "ops" not in checked
    shown = notified.dims("config", "show", check=True).stdout
    assert TOKEN not in shown
    channels = json.loads(shown)["notify"]["channels"]
    assert (channels["ops"]["url"], channels["mail"]["url"]) == ("**********", "")
    assert channels["mail"]["tiers"] == ["approve"]
    notified.env["DIMS_NOTIFY_URL"] = TOKEN
    wrong = notified.dims("config", "check")
    assert wrong.returncode == 2
    assert "notify.channels.ops.url: is not an Apprise URL" in wrong.stderr
    assert TOKEN not in wrong.stdout + wrong.stderr
