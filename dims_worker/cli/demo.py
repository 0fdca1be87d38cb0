"""Define `dims demo`: the whole flow on real servers, in a temporary data directory that is removed afterwards."""

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
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlalchemy import Connection, Engine

from dims_producers import git_hook, s3_lambda
from dims_producers.publish import publish
from dims_worker import local
from dims_worker.approvals.decisions import decide_request
from dims_worker.cli.approvals import print_request
from dims_worker.cli.session import FILE, Session, examples, pass_session
from dims_worker.cli.up import flower_variables, procfile_text, web_variables
from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.errors import ServiceError, UsageError
from dims_worker.formatting import format_duration
from dims_worker.store import metric_states
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.events import LoggedEvent, event_by_id, list_events, served_metrics
from dims_worker.store.migrations import migrate
from dims_worker.text.activity import ActivityFollower

STEP_TIMEOUT = 40.0
"""Seconds that each step may take."""
RECORD_WIDTH = 148
BUCKET, OBJECTS, UPLOADS = "demo-lake", 150, 28
FILES = {
    "loader/__init__.py": "",
    "loader/games.py": "def load(day):\n    return []\n",
    "tests/test_games.py": "def test_load():\n    assert True\n",
    "docs/guide.md": "# Guide\n",
}


@click.command()
@examples("dims demo", "dims demo --record demo.svg")
@click.option("--record", type=FILE, help="Write the output to this SVG file.")
@pass_session
def demo(session: Session, record: Path | None) -> None:
    """See DIMS work on a scratch project, in about 20 seconds.

    The demo starts PostgreSQL, Valkey and workers in a temporary data directory. Then it makes a commit, an upload and
    an approval, and prints what DIMS does. It leaves nothing behind. It needs the extra `demo`.
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
    """Return the output of a console as an SVG without web fonts, so that the picture needs no network."""
    svg = console.export_svg(title="make demo")
    svg = svg.replace("<text ", '<text xml:space="preserve" ')
    return re.sub(r"@font-face \{.*?\}\s*|<!-- .*? -->\s*", "", svg, flags=re.DOTALL)


class DemoStory:
    """The steps of the demo. Closing `stack` stops everything that a step started."""

    def __init__(self, session: Session, folder: Path, stack: ExitStack) -> None:
        self.session = session
        self.stack = stack
        self.home, self.project = folder / "home", folder / "project"
        self.env: dict[str, str] = {}
        self.started = time.monotonic()

    def play(self) -> None:
        self.print_title("Create a scratch project: a git repository, and a bucket on a local S3 server")
        self.make_project()
        self.stack.enter_context(lake_server(self.env))
        self.fill_lake(0, OBJECTS)
        self.print_title("Start PostgreSQL, Valkey, three workers, beat, flower, watch and web")
        self.start_stack()
        self.print_title("Measure every metric for the first time")
        self.wait_until("the first measurement", self.nothing_due)
        self.print_title("Commit a change to docs/ only")
        commit_ms = self.commit()
        self.print_title(f"Upload {UPLOADS} more objects to the bucket")
        upload_ms = self.upload()
        self.print_title("A drift of 18.7 % on a critical metric waits for approval. Show the request and approve it")
        self.approve()
        metrics = len(self.config.metrics)
        duration = format_duration(timedelta(seconds=time.monotonic() - self.started))
        self.print_title(f"Done in {duration}. Stop and remove everything")
        self.stack.close()
        click.echo(f"demo: ok commit_to_recorded_ms={commit_ms} upload_to_recorded_ms={upload_ms} metrics={metrics}")

    # --- setup ----------------------------------------------------------------------------------------

    def make_project(self) -> None:
        self.project.mkdir()
        inherited = {k: v for k, v in self.session.env.items() if not k.startswith(("DIMS_", "AWS_", "GIT_"))}
        self.env = {
            **inherited,
            "GIT_AUTHOR_NAME": "Demo",
            "GIT_AUTHOR_EMAIL": "demo@example.org",
            "GIT_COMMITTER_NAME": "Demo",
            "GIT_COMMITTER_EMAIL": "demo@example.org",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "DIMS_HOME": str(self.home),
        }
        config = resources.files(__package__).joinpath("demo.yaml").read_text(encoding="utf-8")
        for name, text in {"dims.yaml": config, **FILES}.items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text)
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Begin")
        self.config = load_config(None, self.env, self.project)

    def start_stack(self) -> None:
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
        supervisor = local.Supervisor(self.home, procfile_text(), self.env, self.project, self.log)
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
        """Upload objects. Return the records of the S3 notification, as AWS gives them to a Lambda function."""
        import boto3

        s3 = boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            region_name=self.env["AWS_DEFAULT_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )
        if first == 0:
            s3.create_bucket(Bucket=BUCKET)
        records = []
        for number in range(first, first + count):
            key = f"games/{date(2013, 3, 16) + timedelta(days=number)}.json".replace("-", "")
            s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"games": []}\n' * (1 + number % 7))
            now = datetime.now(UTC).isoformat()
            entity = {"bucket": {"name": BUCKET}, "object": {"key": key, "sequencer": f"{number:016X}"}}
            records.append({"eventName": "ObjectCreated:Put", "eventTime": now, "awsRegion": "us-east-1", "s3": entity})
        return records

    # --- steps ----------------------------------------------------------------------------------------

    def commit(self) -> int:
        (self.project / "docs" / "tables.md").write_text("# Tables\n")
        self.git("add", "-A")
        begun = datetime.now(UTC)
        self.git("commit", "-q", "-m", "Describe the tables")
        sha = self.git("rev-parse", "HEAD")
        event, recorded = self.wait_until_recorded(lambda connection: event_by_id(connection, sha))
        alone = [n for names in self.config.metrics_by_source.values() for n in names if n not in event.metrics]
        self.print_detail(f"left alone: {', '.join(alone)}")
        return self.print_latency("the commit", begun, recorded)

    def upload(self) -> int:
        records = self.fill_lake(OBJECTS, UPLOADS)
        begun = datetime.now(UTC)
        events, _ = s3_lambda.events_of({"Records": records}, begun)  # as the Lambda function does
        publish(events, self.env["DIMS_PRODUCER_URL"])
        _, recorded = self.wait_until_recorded(self.latest_upload)
        return self.print_latency("the upload", begun, recorded)

    def latest_upload(self, connection: Connection) -> LoggedEvent | None:
        """Return the latest event if it is an upload."""
        latest = list_events(connection, limit=1)
        return next((event for event in latest if event.type and event.type.startswith("com.amazonaws.s3.")), None)

    def approve(self) -> None:
        with transaction(self.engine) as connection:
            request, now = open_requests(connection)["s3_storage.total_objects"], clock(connection)
        print_request(Session(None, self.env, self.project, self.session.out), request, now)
        number, version, person = str(request.id), request.version, Decider("demo", "option")
        note = "the new season"
        decide_request(self.engine, self.config, number, "approved", version=version, person=person, note=note)
        with transaction(self.engine) as connection:
            state = metric_states.read_states(connection, [request.metric])[request.metric]
        change = f"is {state.baseline:,} now (was {request.baseline:,})"
        self.print_detail(f"approved: the baseline of {request.metric} {change}")

    # --- output and waiting ---------------------------------------------------------------------------

    def print_title(self, line: str) -> None:
        self.session.print_text(f"\n{line}", "bold")

    def print_detail(self, line: str) -> None:
        self.session.print_activity(f"          {line}")

    def log(self, line: str) -> None:
        """Write a line of the supervisor to a log. It matters only when something goes wrong."""
        with (self.home / "logs" / "demo.log").open("a") as log:
            log.write(f"{line}\n")

    def print_latency(self, what: str, begun: datetime, recorded: datetime) -> int:
        self.print_detail(f"from {what} to the recorded value: {format_duration(recorded - begun)}")
        return round((recorded - begun).total_seconds() * 1000)

    def wait_until_recorded(self, find: Callable[[Connection], LoggedEvent | None]) -> tuple[LoggedEvent, datetime]:
        """Wait until all metrics of an event are measured. Return the event and when the last one was recorded."""
        recorded: list[tuple[LoggedEvent, datetime]] = []

        def all_recorded() -> bool:
            with transaction(self.engine) as connection:
                event = find(connection)
                times = [metric.recorded_at for metric in served_metrics(connection, event)] if event else []
            if event and times and all(times):
                recorded.append((event, max(time for time in times if time)))
            return bool(recorded)

        self.wait_until("the recorded value", all_recorded)
        return recorded[0]

    def nothing_due(self) -> bool:
        with transaction(self.engine) as connection:
            states = metric_states.read_states(connection, self.config.metrics)
        return len(states) == len(self.config.metrics) and not any(state.due for state in states.values())

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        """Print what happens until it is done. Raises ServiceError with the end of the logs after STEP_TIMEOUT."""
        end = time.monotonic() + STEP_TIMEOUT
        ready = False
        while not ready:
            ready = done()
            with transaction(self.engine) as connection:
                for sentence in self.follower.sentences(connection):
                    self.session.print_activity(sentence)
            if not ready and time.monotonic() > end:
                logs = "".join(path.read_text(errors="replace")[-1500:] for path in (self.home / "logs").glob("*.log"))
                raise ServiceError(f"{what} did not come within {STEP_TIMEOUT:g} seconds. The logs end with:\n{logs}")
            if not ready:
                time.sleep(0.05)

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.project), *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceError(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


@contextmanager
def lake_server(env: dict[str, str]) -> Iterator[None]:
    """Run the S3 server of moto on a free local port, and set the variables in `env` that point to it."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        raise UsageError("the demo needs an S3 server: pip install 'dims-worker[demo]'") from None
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line for each HTTP request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        yield
    finally:
        server.stop()
