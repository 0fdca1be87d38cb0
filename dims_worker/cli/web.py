"""`dims web`: the page with live values and approvals, and its JSON API."""

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
from dims_worker.cli.session import Session, pass_session
from dims_worker.config.web import MIN_TOKEN_LENGTH
from dims_worker.errors import DimsError, ServiceError, UsageError
from dims_worker.local.flower import flower_access as flower_access
from dims_worker.local.home import DataDirectory, read_json, secret, write_json
from dims_worker.local.ports import is_loopback
from dims_worker.local.process import wait_until

PORT = 8420
SIGNS = "DIMS_WEB_SECRET"
"""Signs sessions; where it is not set, one is drawn and kept in the home."""
PATIENCE = 2.0
"""Seconds in which a page that is served says so."""
STARTING = 20.0
"""Seconds in which one that `dims up` started is served."""
MISSING = "Starlette, Jinja and Uvicorn are not all installed: pip install 'dims-worker[web]'"


@click.command()
@click.option("--address", envvar="DIMS_WEB_ADDRESS", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", envvar="DIMS_WEB_PORT", type=click.IntRange(0, 65535), default=PORT, show_default=True,
              help="0: a free one.")  # fmt: skip
@click.option("--link", is_flag=True, help="Print a link that signs you in to the site that runs, and end.")
@click.option("--as", "name", metavar="NAME", help="Whom --link signs in (default: you).")
@pass_session
def web(session: Session, address: str, port: int, link: bool, name: str | None) -> None:
    """Serve the page with live values and approvals, and its JSON API, until Ctrl-C.

    \b
    Examples:
      dims web                        http://127.0.0.1:8420, for this machine alone
      dims web --link                 a link that signs you in
      dims web --address 0.0.0.0      for others, who sign in (web.tokens or web.proxy)
    """
    try:
        from dims_worker.web.app import build_app
        from dims_worker.web.context import WebContext
        from dims_worker.web.identity import SignInPolicy
        from dims_worker.web.live_hub import LiveHub
        from dims_worker.web.server import listen_socket, run_server
    except ImportError:
        raise UsageError(MISSING) from None
    config = session.config
    home = DataDirectory.at(config.home).make()
    access = SignInPolicy(config.web, _secret(session, home))
    if link:
        asked = click.get_current_context().get_parameter_source
        if ParameterSource.COMMANDLINE in (asked("address"), asked("port")):
            raise UsageError("--link leads to the page that runs: --address and --port are for serving one")
        click.echo(f"{_running_at(home)}/sign-in?code={access.link(name or getpass.getuser())}")
        return
    if name:
        raise UsageError("--as belongs to --link")
    listening = listen_socket(address, port)
    shown = url(address, listening.getsockname()[1])
    with session.database() as engine:
        site = WebContext(config, engine, _broker(session), access, _flower(session), LiveHub(engine, config))
        session.err.print(f"the page is at {shown}; `dims web --link` signs you in", soft_wrap=True)
        if not is_loopback(address):
            session.err.print("it is not encrypted: let a proxy with TLS stand before it", soft_wrap=True)
        with _told(home, shown):
            run_server(build_app(site, address), listening)


def _secret(session: Session, home: DataDirectory) -> str:
    """What signs. Raises UsageError where it is so short that somebody might guess it."""
    said = session.env.get(SIGNS)
    found = secret(home.run, None, "web_secret") if said is None else said.strip()
    if len(found) >= MIN_TOKEN_LENGTH:
        return found
    if said is None:
        raise UsageError(f"{home.run / 'web_secret'} is cut short: remove it, and another is drawn")
    raise UsageError(
        f"{SIGNS} is shorter than {MIN_TOKEN_LENGTH} characters: `openssl rand -hex 24` draws a good one; "
        "where it is not set, one is drawn and kept"
    )


def url(address: str, port: int) -> str:
    """Where a browser of this machine finds it."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - any of them is this machine
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"


@contextmanager
def _told(home: DataDirectory, shown: str) -> Iterator[None]:
    """Others find the page while it is served; afterwards the one that was served before it, if there is one."""
    file = home.run / "web.json"
    before, mine = read_json(file), {"url": shown, "pid": os.getpid()}
    write_json(file, mine)
    try:
        yield
    finally:
        if read_json(file) == mine:  # else somebody else serves one since, and is the one to find
            write_json(file, before) if before else file.unlink()


def _running_at(home: DataDirectory) -> str:
    """Where the page is served; one that `dims up` has just started is waited for.

    Raises ServiceError where nothing answers: a link would lead nowhere.
    """
    wait_until(lambda: _answers(_told_at(home)) or not _starts(home), STARTING)
    found = _told_at(home)
    if not found:
        raise ServiceError(f"no page is served from {home.path}: `dims up` or `dims web` starts one")
    if not _answers(found):
        raise ServiceError(f"no page answers at {found}: `dims up` or `dims web` starts one")
    return found


def _told_at(home: DataDirectory) -> str:
    return str(read_json(home.run / "web.json").get("url") or "")


def _starts(home: DataDirectory) -> bool:
    return any((one.name, one.state) == ("web", "running") for one in local.stack_status(home.path))


def _answers(url: str) -> bool:
    where = urlsplit(url)
    if not where.hostname:
        return False
    connection = HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _broker(session: Session) -> str | None:
    """Where events go, as any producer finds it; None where nobody says: then nothing can be started from the page."""
    try:
        return broker_url(session.env, session.config.home)
    except DimsError:
        servers = local.running(session.config.home)
        return servers.broker_url if servers else None


def _flower(session: Session) -> str | None:
    """Where people reach Flower: what the configuration says, else where `dims up` runs it."""
    if session.config.web.flower or not session.env.get("DIMS_FLOWER_PORT"):
        return session.config.web.flower
    return flower_access(session.env).url
