"""Define `dims web`: the dashboard and its JSON API."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from dims_producers.publish import broker_url
from dims_worker import local
from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.config.web import MIN_TOKEN_LENGTH
from dims_worker.errors import DimsError, ServiceError, UsageError
from dims_worker.local.flower import flower_access
from dims_worker.local.home import DataDirectory, read_json, secret, write_json
from dims_worker.local.ports import is_loopback
from dims_worker.local.process import wait_until

PORT = 8420
PORTS = click.IntRange(0, 65535)
ADDRESS_HELP = "Listen on this address, or set DIMS_WEB_ADDRESS."
PORT_HELP = "Listen on this port, or set DIMS_WEB_PORT. 0 takes a free one."
SECRET_VARIABLE = "DIMS_WEB_SECRET"  # noqa: S105 - the name of a variable
"""It signs sessions. If it is not set, a random secret is kept in the data directory."""
ANSWER_TIMEOUT = 2.0
"""Seconds in which a running dashboard answers."""
START_TIMEOUT = 20.0
"""Seconds in which a dashboard that `dims up` starts is ready."""
MISSING = "Starlette, Jinja and Uvicorn are not all installed: pip install 'dims-worker[web]'"


@click.command()
@examples(
    "dims web                        serve this host only, on port 8420",
    "dims web --link                 print a link that signs you in",
    "dims web --address 0.0.0.0      serve other hosts, behind a sign-in",
)
@click.option("--address", envvar="DIMS_WEB_ADDRESS", default="127.0.0.1", show_default=True, help=ADDRESS_HELP)
@click.option("--port", envvar="DIMS_WEB_PORT", type=PORTS, default=PORT, show_default=True, help=PORT_HELP)
@click.option("--link", is_flag=True, help="Print a link that signs you in to the running dashboard, and exit.")
@click.option("--as", "name", metavar="NAME", help="The name that --link signs in. Default: your user name.")
@pass_session
def web(session: Session, address: str, port: int, link: bool, name: str | None) -> None:
    """Serve the dashboard and its JSON API until you press Ctrl-C.

    On the dashboard you see live values, and you approve or reject changes. `dims up` serves it for you.
    """
    try:
        from dims_worker.store.process_reporter import identify_process, reported_process
        from dims_worker.web.app import build_app
        from dims_worker.web.context import WebContext
        from dims_worker.web.identity import SignInPolicy
        from dims_worker.web.live_hub import LiveHub
        from dims_worker.web.server import listen_socket, run_server
    except ImportError:
        raise UsageError(MISSING) from None
    config = session.config
    home = DataDirectory(config.home).make()
    access = SignInPolicy(config.web, _secret(session, home))
    if link:
        parameter_source = click.get_current_context().get_parameter_source
        if ParameterSource.COMMANDLINE in (parameter_source("address"), parameter_source("port")):
            raise UsageError("--link is for the dashboard that runs: it excludes --address and --port")
        click.echo(f"{_running_url(home)}/sign-in?code={access.link(name or getpass.getuser())}")
        return
    if name:
        raise UsageError("--as needs --link")
    listening = listen_socket(address, port)
    own_url = url(address, listening.getsockname()[1])
    with session.database() as engine:
        context = WebContext(config, engine, _broker(session), access, _flower(session), LiveHub(engine, config))
        session.err.print(f"serving the dashboard at {own_url} (sign in with `dims web --link`)", soft_wrap=True)
        if not is_loopback(address):
            session.err.print("connections are not encrypted: put a proxy with TLS in front of it", soft_wrap=True)
        with _published_url(home, own_url), reported_process(engine, identify_process("web", config), config):
            run_server(build_app(context, address), listening)


def _secret(session: Session, home: DataDirectory) -> str:
    """Return the secret that signs sessions. Raises UsageError if it is short enough to be guessed."""
    variable = session.env.get(SECRET_VARIABLE)
    value = secret(home.run, None, "web_secret") if variable is None else variable.strip()
    if len(value) >= MIN_TOKEN_LENGTH:
        return value
    if variable is None:
        raise UsageError(f"{home.run / 'web_secret'} is incomplete. Delete it, and DIMS creates a new one.")
    raise UsageError(
        f"{SECRET_VARIABLE} is shorter than {MIN_TOKEN_LENGTH} characters. Create one with `openssl rand -hex 24`, "
        "or unset it, and DIMS creates one."
    )


def url(address: str, port: int) -> str:
    """Return the URL for a browser on this host."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - each of them is this host
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"


@contextmanager
def _published_url(home: DataDirectory, own_url: str) -> Iterator[None]:
    """Publish the URL in the data directory while the dashboard is served, then restore the URL from before."""
    file = home.run / "web.json"
    before, own = read_json(file), {"url": own_url, "pid": os.getpid()}
    write_json(file, own)
    try:
        yield
    finally:
        if read_json(file) == own:  # otherwise, another dashboard was started since, and its URL must stay
            write_json(file, before) if before else file.unlink()


def _running_url(home: DataDirectory) -> str:
    """Return the URL of the running dashboard, after waiting for one that `dims up` has just started.

    Raises ServiceError if no dashboard answers.
    """
    wait_until(lambda: answers(read_url(home)) or not _starts(home), START_TIMEOUT)
    running_url = read_url(home)
    if not running_url:
        raise ServiceError(f"no dashboard is running for {home.path}. Start it with `dims up` or `dims web`.")
    if not answers(running_url):
        raise ServiceError(f"no dashboard answers at {running_url}. Start it with `dims up` or `dims web`.")
    return running_url


def read_url(home: DataDirectory) -> str:
    """Return the URL that the running dashboard published in the data directory, or an empty text."""
    return str(read_json(home.run / "web.json").get("url") or "")


def _starts(home: DataDirectory) -> bool:
    return any((part.name, part.state) == ("web", "running") for part in local.stack_status(home.path))


def answers(url: str) -> bool:
    """Return whether a dashboard answers at this URL within two seconds."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    connection = HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _broker(session: Session) -> str | None:
    """Return the broker that producers use, or None. Without a broker, the dashboard cannot start measurements."""
    try:
        return broker_url(session.env, session.config.home)
    except DimsError:
        servers = local.running(session.config.home)
        return servers.broker_url if servers else None


def _flower(session: Session) -> str | None:
    """Return the URL of Flower from the configuration, or else the one that `dims up` uses."""
    if session.config.web.flower or not session.env.get("DIMS_FLOWER_PORT"):
        return session.config.web.flower
    return flower_access(session.env).url
