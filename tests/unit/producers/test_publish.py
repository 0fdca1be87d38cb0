from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dims_producers.publish import broker_url, publish
from dims_worker.errors import BrokerUnreachable, ConfigError
from dims_worker.events import Event

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def event(id: str = "1") -> Event:
    return Event.new("t", "p", now=NOW, id=id)


def test_publish_appends_in_order_in_one_round_trip(broker) -> None:
    ids = publish([event(str(i)) for i in range(50)], broker.url)
    assert len(ids) == 50 and ids == sorted(ids, key=lambda i: [int(part) for part in i.split("-")])
    assert [e.id for e in broker.events()] == [str(i) for i in range(50)]
    assert broker.trips == 1


def test_publishing_no_events_connects_to_no_broker(broker) -> None:
    assert publish([], broker.url) == []
    assert broker.trips == 0


def test_an_unreachable_broker_is_reported_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnreachable) as caught:
            publish([event()], f"redis://user:hunter2@127.0.0.1:{port}/0", timeout=0.5)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_publish_to_a_broker_that_hangs_ends_within_twice_the_timeout() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        started = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            publish([event()], f"redis://:x@127.0.0.1:{deaf.getsockname()[1]}/0?socket_timeout=60", timeout=0.3)
        assert time.monotonic() - started < 30  # the URL asks for a minute


def test_a_missing_socket_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnreachable, match=r"no\.sock") as caught:
        publish([event()], f"redis+socket://:hunter2@{tmp_path}/no.sock?virtual_host=0", timeout=0.3)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_missing_tls_file_is_named(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} names nowhere/x.pem, which does not exist") as caught:
        publish([event()], f"rediss://:hunter2@127.0.0.1:1/0?{option}=nowhere/x.pem")
    assert "hunter2" not in str(caught.value)


def test_the_broker_url_comes_from_the_environment_or_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "producer.env").write_text("# by dims up\nexport DIMS_BROKER_URL='redis://file:1/0'\nX=1\n")
    assert broker_url({"DIMS_BROKER_URL": "redis://env:1/0"}, tmp_path) == "redis://env:1/0"
    assert broker_url({"DIMS_BROKER_URL": " "}, tmp_path) == "redis://file:1/0"


@pytest.mark.parametrize("has_home", [True, False])
def test_a_missing_broker_url_is_an_error_with_a_fix(tmp_path: Path, has_home: bool) -> None:
    with pytest.raises(ConfigError, match=r"Set DIMS_BROKER_URL .* or start one with `dims up`"):
        broker_url({}, tmp_path if has_home else None)
