"""How the servers are set up: migrations, versions and encryption, on real servers."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, make_url, text

from dims_worker.checks import Check
from dims_worker.checks.server_setup import broker_setup_checks, broker_tls_check, database_setup_checks
from dims_worker.store.revisions import VERSION_TABLE


def by_name(url: str, *, own: bool = True) -> dict[str, Check]:
    return {check.name: check for check in database_setup_checks(url, own=own)}


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :revision"), {"revision": revision})


def test_a_migrated_database_is_fine(database_url: str) -> None:
    found = by_name(database_url)
    assert {name: check.state for name, check in found.items()} == {
        "PostgreSQL": "ok",
        "migrations": "ok",
        "database TLS": "ok",
    }


def test_a_database_that_is_older_or_newer_than_the_program(database_url: str, engine: Engine) -> None:
    set_revision(engine, "0001")
    found = by_name(database_url)["migrations"]
    assert (found.state, found.fix) == ("problem", "Run `dims migrate`.")
    assert by_name(database_url, own=False)["migrations"].fix.startswith("Run `dims up`")
    set_revision(engine, "9999")
    found = by_name(database_url)["migrations"]
    assert found.state == "problem" and "is newer than this DIMS" in found.summary and "later one" in found.fix


def test_an_empty_database_lacks_the_tables(empty: Engine) -> None:
    url = empty.url.render_as_string(hide_password=False)
    assert by_name(url)["migrations"].summary == "the database lacks DIMS's tables"


def test_a_database_over_a_network_without_encryption(database_url: str) -> None:
    import socket

    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        pytest.skip("this host has no address of its own")
    # The server listens on 127.0.0.1 only, so a name that is not known to be local stands for another host
    url = make_url(database_url).set(host="localhost.localdomain").render_as_string(hide_password=False)
    try:
        socket.gethostbyname("localhost.localdomain")
    except OSError:
        pytest.skip("this host has no second name for itself")
    found = by_name(url)["database TLS"]
    assert found.state == "warning" and "is not encrypted" in found.summary and "sslmode=verify-full" in found.fix


def test_the_version_of_the_broker(broker_url: str) -> None:
    import redis

    with redis.Redis.from_url(broker_url) as client:
        found = {check.name: check for check in broker_setup_checks(broker_url, client.info())}
    assert {name: check.state for name, check in found.items()} == {"broker version": "ok", "broker TLS": "ok"}
    (old, _) = broker_setup_checks(broker_url, {"redis_version": "5.0.14"})
    assert (old.state, old.summary) == ("problem", "Redis 5.0.14 is not supported")


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("redis://:secret-word@127.0.0.1:6379/0", "ok"),
        ("redis://localhost/0", "ok"),
        ("redis+socket://:secret-word@/run/valkey.sock", "ok"),
        ("redis://:secret-word@[::1]:6379/0", "ok"),
        ("redis://:secret-word@10.0.0.5:6379/0", "warning"),
        ("redis://:secret-word@broker.example.org/0", "warning"),
        ("rediss://:secret-word@broker.example.org/0", "ok"),
        ("rediss://:secret-word@broker.example.org/0?ssl_cert_reqs=none", "warning"),
        ("rediss://:secret-word@broker.example.org/0?ssl_check_hostname=false", "warning"),
    ],
)
def test_the_encryption_of_the_broker(url: str, state: str) -> None:
    found = broker_tls_check(url)
    assert found.state == state and "secret-word" not in repr(found)
