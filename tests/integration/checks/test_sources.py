"""One cheap request per source, against real servers, and what it says when they refuse."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from dims_worker.checks import Check, bucket_notifications, sources
from dims_worker.checks.bucket_notifications import notification_checks
from dims_worker.checks.sources import source_checks
from tests.conftest import Lake, Project

RULES = 'rules:\n  uploaded: {on: "com.amazonaws.s3.*"}\n'


@pytest.fixture
def aws(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for module in (sources, bucket_notifications):  # a loaded machine is slow, and that is no finding
        monkeypatch.setattr(module, "LIMIT", timedelta(seconds=60))
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    return lake


def checks(project: Project, text: str) -> dict[str, Check]:
    project.write({"dims.yaml": text})
    return {name: check() for name, check in source_checks(project.config).items()}


def test_sources_that_answer(project: Project, aws: Lake, database_url: str) -> None:
    aws.put("nba", {"raw/a.json": b"{}"})
    project.commit("first", {"data/a.txt": "a", "run.sh": "#!/bin/sh\necho 1\n"})
    (project.folder / "run.sh").chmod(0o755)
    project.env["URL"] = database_url
    found = checks(
        project,
        """
sources:
  lake: {type: s3, bucket: nba}
  data: {type: files, path: data}
  code: {type: git, path: .}
  db: {type: sql, url: "${URL}"}
  account: {type: aws}
  tools: {type: command}
metrics:
  m:
    objects: {source: lake, measure: count, prefix: raw/}
    output: {source: tools, command: [./run.sh]}
    shell: {source: tools, command: "echo 1", shell: true}
rules: {}
""",
    )
    assert {name: check.state for name, check in found.items()} == dict.fromkeys(found, "ok"), found
    assert found["lake"].summary.startswith("lists the bucket nba (")
    assert (
        "arn:aws" in found["account"].summary and project.git("rev-parse", "--short", "HEAD") in found["code"].summary
    )
    assert len(aws.lists) == 1 and "max-keys=1" in aws.lists[0]


def test_sources_that_do_not(project: Project, aws: Lake, database_url: str) -> None:
    project.env["URL"] = make_url(database_url).set(password="wrong-password").render_as_string(hide_password=False)
    found = checks(
        project,
        """
sources:
  lake: {type: s3, bucket: missing}
  data: {type: files, path: nowhere}
  code: {type: git, path: /}
  db: {type: sql, url: "${URL}"}
  empty: {type: sql, url: "${UNSET:-}"}
  tools: {type: command}
  remote: {type: files, path: /not/here, queue: other}
metrics:
  m:
    output: {source: tools, command: [no-such-program]}
rules: {}
""",
    )
    states = {name: check.state for name, check in found.items()}
    assert states == dict.fromkeys(found, "problem") | {"remote": "warning"}
    assert all(check.fix for check in found.values())
    assert "does not exist" in found["lake"].summary and found["lake"].fix.startswith("Check `bucket`")
    assert found["data"].fix == "Correct `path`, or mount it"
    assert "password authentication failed" in found["db"].summary and "wrong-password" not in repr(found["db"])
    assert found["tools"].summary == "no-such-program cannot be run"
    assert "queue other" in found["remote"].fix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_repository_of_another_user_names_the_setting(project: Project, monkeypatch) -> None:
    project.commit("x", {"a": "a"})
    subprocess.run(["chown", "-R", "1234:1234", project.folder], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    found = checks(project, "sources:\n  code: {type: git, path: .}\nmetrics: {}\nrules: {}\n")
    assert found["code"].state == "problem" and "safe.directory" in found["code"].summary + found["code"].fix


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        opened: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    opened.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        for each in opened:
            each.close()


def test_a_server_that_hangs_costs_a_few_seconds(project: Project, silent_server: int, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    began = time.monotonic()
    found = checks(
        project,
        f"""
sources:
  db: {{type: sql, url: "postgresql://u:secret-word@127.0.0.1:{silent_server}/x"}}
  lake: {{type: s3, bucket: nba, endpoint_url: "http://127.0.0.1:{silent_server}"}}
metrics: {{}}
rules: {{}}
""",
    )
    assert {check.state for check in found.values()} == {"problem"} and time.monotonic() - began < 40
    assert "secret-word" not in repr(found)


def notifications(project: Project, prefix: str = "raw/") -> Check:
    project.write(
        {
            "dims.yaml": "sources:\n  lake: {type: s3, bucket: nba}\nmetrics:\n  m:\n"
            f"    objects: {{source: lake, measure: count, prefix: {prefix}}}\n" + RULES
        }
    )
    (check,) = notification_checks(project.config).values()
    return check()


def client(lake: Lake, service: str):
    import boto3

    return boto3.client(service, endpoint_url=lake.url, region_name="us-east-1")


def test_notifications_of_a_real_bucket(project: Project, aws: Lake) -> None:
    aws.put("nba", {"raw/a.json": b"{}"})
    assert "has no notifications" in notifications(project).summary
    queue = client(aws, "sqs").create_queue(QueueName="q")["QueueUrl"]
    attributes = client(aws, "sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    arn = attributes["Attributes"]["QueueArn"]
    rules = [{"Name": "prefix", "Value": "raw/"}, {"Name": "suffix", "Value": ".json"}]
    target = {
        "QueueArn": arn,
        "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
        "Filter": {"Key": {"FilterRules": rules}},
    }
    s3 = client(aws, "s3")
    s3.put_bucket_notification_configuration(Bucket="nba", NotificationConfiguration={"QueueConfigurations": [target]})
    found = notifications(project)
    assert (found.state, found.summary) == (
        "warning",
        "nba does not report all uploads below raw/ (only raw/*.json); nor all deletions below raw/ (only raw/*.json)",
    )
    rules.pop()
    s3.put_bucket_notification_configuration(Bucket="nba", NotificationConfiguration={"QueueConfigurations": [target]})
    assert notifications(project).state == "ok"
    assert notifications(project, prefix="staging/").state == "warning"


@pytest.mark.parametrize(
    ("code", "status", "part"),
    [
        ("AccessDenied", 403, "Grant s3:GetBucketNotification on arn:aws:s3:::nba"),
        ("NotImplemented", 501, "console of this store"),
        ("MethodNotAllowed", 405, "console of this store"),
    ],
)
def test_notifications_that_cannot_be_read(
    project: Project, aws: Lake, monkeypatch, code: str, status: int, part: str
) -> None:
    from dims_worker.probes.s3.probe import s3_client

    def refusing(source, deadline):
        made = s3_client(source, deadline)

        def refuse(**_):
            from botocore.exceptions import ClientError

            answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(answer, "GetBucketNotificationConfiguration")

        made.meta.events.register("before-call.s3.GetBucketNotificationConfiguration", refuse)
        return made

    monkeypatch.setattr("dims_worker.checks.bucket_notifications.s3_client", refusing)
    found = notifications(project)
    assert found.state == "warning" and found.summary.startswith("cannot be checked: ") and part in found.fix


def test_without_a_rule_notifications_are_not_needed(project: Project) -> None:
    project.write(
        {
            "dims.yaml": "sources:\n  lake: {type: s3, bucket: nba}\nmetrics:\n  m:\n"
            '    objects: {source: lake, measure: count}\nrules:\n  daily: {schedule: "0 9 * * *"}\n'
        }
    )
    (check,) = notification_checks(project.config).values()
    assert check().state == "ok"


def test_a_database_of_the_source_may_be_sqlite(project: Project, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{project.folder}/data.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a int)"))
    engine.dispose()
    found = checks(project, "sources:\n  db: {type: sql, url: 'sqlite:///data.db'}\nmetrics: {}\nrules: {}\n")
    assert found["db"].state == "ok"
