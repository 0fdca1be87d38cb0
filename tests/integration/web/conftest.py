"""The site over a real database: `made(config)` is a client of it, signed in or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine
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
    """`visit(config, "ada")`: a client that is signed in as ada; `visit(config)`: one that is not. `web`: keys of the
    web section; `broker_url`; `on`: another engine; `live=True`: with the lifespan, so with its listener; `peer`:
    where it comes from."""
    with ExitStack() as stack:

        def made(
            config: Config,
            who: str | None = None,
            *,
            on: Engine | None = None,
            broker_url: str | None = None,
            live: bool = False,
            address: str = "127.0.0.1",
            peer: str = "testclient",
            **web: Any,
        ) -> TestClient:
            said = WebSection.model_validate({"tokens": TOKENS, "events_token": EVENTS_TOKEN, **web})
            access = SignInPolicy(said, "a secret of the tests")
            with_web = replace(config, web=said)
            site = WebContext(with_web, on or engine, broker_url, access, None, LiveHub(on or engine, with_web))
            client = TestClient(
                build_app(site, address), base_url="http://localhost", follow_redirects=False, client=(peer, 1)
            )
            if live:
                stack.enter_context(client)
            if who:
                client.cookies.set(access.cookie, access.session(Viewer(who, "token")))
            return client

        yield made


def form_token(page: str) -> str:
    """The token of a page's first form."""
    return page.split('name="form_token" value="', 1)[1].split('"', 1)[0]
