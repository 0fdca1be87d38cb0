"""The dashboard over a real database. The fixture `visit` returns a client, signed in or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from dims_worker.config import Config, WebSection
from dims_worker.web.app import build_app
from dims_worker.web.context import WebContext
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.live_hub import LiveHub
from tests.integration.conftest import beside, flow, make_flow, queries, redis, restart  # noqa: F401 - fixtures

TOKENS = {"ada": "ada-token-" + "x" * 20, "bob": "bob-token-" + "y" * 20}
EVENTS_TOKEN = "events-token-" + "z" * 20

Visit = Callable[..., TestClient]


@pytest.fixture
def visit(engine: Engine) -> Iterator[Visit]:
    """`visit(config, "ada")` returns a client that is signed in as ada, and `visit(config)` one that is not.

    `on` is another engine, `live` runs the lifespan and its listener, `peer` is the client's address, and `web` are
    keys of the web section.
    """
    with ExitStack() as stack:

        def make_client(
            config: Config,
            person: str | None = None,
            *,
            on: Engine | None = None,
            broker_url: str | None = None,
            live: bool = False,
            address: str = "127.0.0.1",
            peer: str = "testclient",
            **web: Any,
        ) -> TestClient:
            section = WebSection.model_validate({"tokens": TOKENS, "events_token": EVENTS_TOKEN, **web})
            access = SignInPolicy(section, "a secret of the tests")
            with_web = replace(config, web=section)
            site = WebContext(with_web, on or engine, broker_url, access, None, LiveHub(on or engine, with_web))
            client = TestClient(
                build_app(site, address), base_url="http://localhost", follow_redirects=False, client=(peer, 1)
            )
            if live:
                stack.enter_context(client)
            if person:
                client.cookies.set(access.cookie, access.session(Viewer(person, "token")))
            return client

        yield make_client


def form_token(page: str) -> str:
    """Return the CSRF token of a page's first form."""
    return page.split('name="form_token" value="', 1)[1].split('"', 1)[0]


def hold_requests(engine: Engine) -> None:
    """Insert the incident that each open approval request has. `fill` inserts only the requests."""
    columns = "value, unit, as_of, severity, reason, run_id, opened_at, updated_at"
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO dims_incidents (story, metric, kind, request, anchor, anchor_as_of, {columns}) "
                f"SELECT id, metric, 'approval', id, baseline, baseline_as_of, {columns} FROM dims_approval_requests "
                "WHERE state = 'open' ON CONFLICT DO NOTHING"
            )
        )
