"""`dims demo`: the whole way on real parts, told as it happens, in a temporary home that is gone afterwards."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlalchemy import Engine

from dims_producers import git_hook, s3_lambda
from dims_producers.publish import publish
from dims_worker import local
from dims_worker.approvals import decisions
from dims_worker.cli.approvals import print_request
from dims_worker.cli.session import Session, pass_session
from dims_worker.cli.up import flower_variables, procfile_text, web_variables
from dims_worker.config import load_config
from dims_worker.errors import ServiceError, UsageError
from dims_worker.store import metric_states
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.events import LoggedEvent, event_by_id, list_events, served_metrics
from dims_worker.store.migrations import migrate
from dims_worker.text.activity import ActivityFollower

PATIENCE = 40.0
"""Seconds that each step may take."""
RECORD_WIDTH = 148
BUCKET, OBJECTS, UPLOADS = "demo-lake", 150, 28
FILES = {
    "loader/__init__.py": "",
    "loader/games.py": "def load(day):\n    return []\n",
    "tests/test_games.py": "def test_load():\n    assert True\n",
    "docs/guide.md": "# Guide\n",
}
CONFIG = """\
sources:
  project: {type: files, path: ".", ignore: gitignore}
  repo: {type: git, path: "."}
  lake: {type: s3, bucket: demo-lake}
metrics:
  code_base:
    python_files: {source: project, measure: count, paths: "**/*.py"}
    python_lines: {source: project, measure: lines, paths: "**/*.py", volatility: stable}
    test_files: {source: project, measure: count, paths: "**/test_*.py"}
  documentation:
    markdown_files: {source: project, measure: count, paths: "docs/**/*.md"}
  git:
    commits: {source: repo, measure: commits}
  s3_storage:
    total_objects: {source: lake, measure: count, critical: true}
    total_size: {source: lake, measure: bytes, unit: kB, precision: 1}
    cost_per_month: {derive: "s3_storage.total_size / 1073741.824 * 0.023", unit: USD, precision: 8}
rules:
  git_post_commit: {on: "dims.git.*"}
  s3_upload_complete: {on: "com.amazonaws.s3.*"}
"""


@click.command()
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Keep what is shown as an SVG picture.")
@pass_session
def demo(session: Session, record: Path | None) -> None:
    """See it work: a real PostgreSQL, Valkey and worker in a temporary home, a commit, an upload, an approval.

    Needs the extra `demo`. Ends by itself and leaves nothing behind.
    """
    if record:
        session.out = Console(record=True, highlight=False, markup=False, width=RECORD_WIDTH, force_terminal=True)
    folder = Path(tempfile.mkdtemp(prefix="dims-demo-")).resolve()
    try:
        with ExitStack() as stack:
            DemoStory(session, folder, stack).play()
    finally:
        shutil.rmtree(folder)
    if record:
        record.write_text(console_svg(session.out), encoding="utf-8")


def console_svg(console: Console) -> str:
    """What a console has shown as an SVG, without Rich's web fonts: a picture that asks nobody for anything."""
    svg = console.export_svg(title="make demo")
    svg = svg.replace("<text ", '<text xml:space="preserve" ')
    return re.sub(r"@font-face \{.*?\}\s*|<!-- .*? -->\s*", "", svg, flags=re.DOTALL)


class DemoStory:
    """The story, step by step. What `stack` holds is undone at its end, whatever happens."""

    def __init__(self, session: Session, folder: Path, stack: ExitStack) -> None:
        self.session = session
        self.stack = stack
        self.home, self.project = folder / "home", folder / "project"
        self.env: dict[str, str] = {}
        self.started = time.monotonic()

    def play(self) -> None:
        self.say("A scratch project: a git repository, and a lake on an S3 server of this machine")
        self.make_project()
        self.stack.enter_context(lake_server(self.env))
        self.fill_lake(0, OBJECTS)
        self.say("The machine: PostgreSQL, Valkey, two workers, beat, flower, watch and web, in a temporary home")
        self.start_machine()
        self.say("Everything is measured for the first time")
        self.wait_until("the first measurement", self.nothing_due)
        self.say("A commit that touches only docs/")
        commit_ms = self.commit()
        self.say(f"An upload: {UPLOADS} objects more in the lake")
        upload_ms = self.upload()
        self.say("18.7 % on a critical metric waits for a person; here is the request, and the approval")
        self.approve()
        metrics = len(self.config.metrics)
        self.say(f"The end, after {time.monotonic() - self.started:.0f} s: all is stopped and removed")
        self.stack.close()
        click.echo(f"demo: ok commit_to_recorded_ms={commit_ms} upload_to_recorded_ms={upload_ms} metrics={metrics}")

    # --- the parts ------------------------------------------------------------------------------------

    def make_project(self) -> None:
        self.project.mkdir()
        who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER")
               for part, value in (("NAME", "Demo"), ("EMAIL", "demo@example.org"))}  # fmt: skip
        kept = {k: v for k, v in self.session.env.items() if not k.startswith(("DIMS_", "AWS_", "GIT_"))}
        self.env = {**kept, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
                    "DIMS_HOME": str(self.home)}  # fmt: skip
        for name, text in {"dims.yaml": CONFIG, **FILES}.items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text)
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Begin")
        self.config = load_config(None, self.env, self.project)

    def start_machine(self) -> None:
        self.stack.enter_context(local.hold_home(self.home))
        servers = local.start(self.home)
        self.engine: Engine = engine(str(servers.database_url))
        migrate(self.engine)
        self.env |= {
            "DIMS_DATABASE_URL": str(servers.database_url),
            "DIMS_BROKER_URL": str(servers.broker_url),
            "DIMS_PRODUCER_URL": str(servers.producer_url),
            **flower_variables(self.env),
            **web_variables(self.env),
        }
        stop = threading.Event()
        supervisor = local.Supervisor(self.home, procfile_text(), self.env, self.project, self.whisper)
        running = threading.Thread(target=supervisor.run, args=(stop,), name="supervisor")
        self.follower = ActivityFollower(self.config)
        with transaction(self.engine) as connection:
            self.follower.start(connection)
        git_hook.install(self.project, self.home)
        running.start()
        self.stack.callback(self.engine.dispose)
        self.stack.callback(running.join)
        self.stack.callback(stop.set)
        watcher = self.home / "spool" / "watcher.pid"
        self.wait_until("the watcher", watcher.exists)

    def fill_lake(self, first: int, count: int) -> list[dict[str, Any]]:
        """Upload objects; returns the S3 notification's records, as AWS would hand them to the Lambda."""
        import boto3

        where = {"endpoint_url": self.env["AWS_ENDPOINT_URL"], "region_name": self.env["AWS_DEFAULT_REGION"]}
        keys = {f"aws_{name}": self.env[f"AWS_{name.upper()}"] for name in ("access_key_id", "secret_access_key")}
        s3 = boto3.client("s3", **where, **keys)
        if first == 0:
            s3.create_bucket(Bucket=BUCKET)
        records = []
        for number in range(first, first + count):
            day = (datetime(2013, 3, 16, tzinfo=UTC) + timedelta(days=number)).strftime("%Y%m%d")
            key = f"games/{day}.json"
            s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"games": []}\n' * (1 + number % 7))
            now = datetime.now(UTC).isoformat()
            about = {"bucket": {"name": BUCKET}, "object": {"key": key, "sequencer": f"{number:016X}"}}
            records.append({"eventName": "ObjectCreated:Put", "eventTime": now, "awsRegion": "us-east-1", "s3": about})
        return records

    # --- the steps ------------------------------------------------------------------------------------

    def commit(self) -> int:
        (self.project / "docs" / "tables.md").write_text("# Tables\n")
        self.git("add", "-A")
        begun = datetime.now(UTC)
        self.git("commit", "-q", "-m", "Describe the tables")
        sha = self.git("rev-parse", "HEAD")
        event, recorded = self.recorded(lambda connection: event_by_id(connection, sha))
        alone = [n for names in self.config.metrics_by_source.values() for n in names if n not in event.metrics]
        self.tell(f"left alone: {', '.join(alone)}")
        return self.told_time("the commit", begun, recorded)

    def upload(self) -> int:
        records = self.fill_lake(OBJECTS, UPLOADS)
        begun = datetime.now(UTC)
        events, _ = s3_lambda.events_of({"Records": records}, begun)  # what the Lambda does with a notification
        publish(events, self.env["DIMS_PRODUCER_URL"])
        _, recorded = self.recorded(lambda connection: next(
            (e for e in list_events(connection, limit=1) if e.type and e.type.startswith("com.amazonaws.s3.")), None
        ))  # fmt: skip
        return self.told_time("the upload", begun, recorded)

    def approve(self) -> None:
        with transaction(self.engine) as connection:
            request, now = open_requests(connection)["s3_storage.total_objects"], clock(connection)
        print_request(Session(None, self.env, self.project, self.session.out), request, now)
        decisions.decide_request(
            self.engine, self.config, str(request.id), "approved", version=request.version,
            person=decisions.Decider("demo", "option"), note="the new season",
        )  # fmt: skip
        with transaction(self.engine) as connection:
            state = metric_states.read_states(connection, [request.metric])[request.metric]
        self.tell(f"approved: the baseline of {request.metric} is {state.baseline:,} now (was {request.baseline:,})")

    # --- telling and waiting --------------------------------------------------------------------------

    def say(self, line: str) -> None:
        self.session.out.print(f"\n{line}", style="bold", soft_wrap=True)

    def tell(self, line: str) -> None:
        self.session.tell(f"          {line}")

    def whisper(self, line: str) -> None:
        """What the supervisor says matters only where something goes wrong: it lies in the log."""
        with (self.home / "logs" / "demo.log").open("a") as log:
            log.write(f"{line}\n")

    def told_time(self, what: str, begun: datetime, recorded: datetime) -> int:
        milliseconds = round((recorded - begun).total_seconds() * 1000)
        self.tell(f"from {what} to the recorded value: {milliseconds:,} ms")
        return milliseconds

    def recorded(self, find: Callable[[Any], LoggedEvent | None]) -> tuple[LoggedEvent, datetime]:
        """The event, once each metric that it concerns is measured, and when the last of them was recorded."""
        found: list[tuple[LoggedEvent, datetime]] = []

        def all_recorded() -> bool:
            with transaction(self.engine) as connection:
                event = find(connection)
                times = [one.recorded_at for one in served_metrics(connection, event)] if event else []
            if event and times and all(times):
                found.append((event, max(time for time in times if time)))
            return bool(found)

        self.wait_until("the recorded value", all_recorded)
        return found[0]

    def nothing_due(self) -> bool:
        with transaction(self.engine) as connection:
            known = metric_states.read_states(connection, self.config.metrics)
        return len(known) == len(self.config.metrics) and not any(state.due for state in known.values())

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        """Tell what happens until it is done. Raises ServiceError, with the log's end, where it takes too long."""
        end = time.monotonic() + PATIENCE
        ready = False
        while not ready:
            ready = done()
            with transaction(self.engine) as connection:
                for sentence in self.follower.sentences(connection):
                    self.session.tell(sentence)
            if not ready and time.monotonic() > end:
                logs = "".join(path.read_text(errors="replace")[-1500:] for path in (self.home / "logs").glob("*.log"))
                raise ServiceError(f"{what} did not come within {PATIENCE:g} s; the logs end with:\n{logs}")
            if not ready:
                time.sleep(0.05)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.project), *arguments], env=self.env, capture_output=True,
                              text=True, check=False)  # fmt: skip
        if done.returncode:
            raise ServiceError(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


@contextmanager
def lake_server(env: dict[str, str]) -> Iterator[None]:
    """moto's S3 server on a free port of this machine; `env` is told where it is."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        raise UsageError("the demo needs an S3 server of its own: install the extra `demo` (see README.md)") from None
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request is nobody's story
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    try:
        yield
    finally:
        server.stop()
