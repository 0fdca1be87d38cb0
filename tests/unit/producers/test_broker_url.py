from __future__ import annotations

import pytest

from dims_producers.broker_url import BrokerAddress
from dims_worker.errors import ConfigError

VERIFIED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "for_redis", "for_kombu", "place"),
    [
        ("redis://:pw@h:1/2", "redis://:pw@h:1/2", None, "h:1"),
        ("valkey://h", "redis://h:6379/0", None, "h:6379"),
        ("redis://h:1?db=3", "redis://h:1/3", None, "h:1"),
        ("redis://h:1/2?virtual_host=3&socket_timeout=60", "redis://h:1/3", None, "h:1"),
        ("valkeys://u:p%40%2F@h:1", "rediss://u:p%40%2F@h:1/0", None, "h:1"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0", None, "[::1]:6379"),
        (
            "redis+socket://:pw@/abs/v.sock?virtual_host=3",
            "unix://:pw@/abs/v.sock?db=3",
            "redis+socket://:pw@/abs/v.sock?virtual_host=3",
            "/abs/v.sock",
        ),
        (
            "unix:///a b/v.sock?db=/3",
            "unix:///a%20b/v.sock?db=3",
            "redis+socket:///a%20b/v.sock?virtual_host=3",
            "/a b/v.sock",
        ),
        (
            "valkey+socket:///a%20b/v.sock",
            "unix:///a%20b/v.sock?db=0",
            "redis+socket:///a%20b/v.sock?virtual_host=0",
            "/a b/v.sock",
        ),
    ],
)
def test_a_url_is_converted_for_each_client(url: str, for_redis: str, for_kombu: str | None, place: str) -> None:
    address = BrokerAddress.of(url)
    assert (address.for_redis, address.for_kombu, address.place) == (for_redis, for_kombu or for_redis, place)
    assert (address.tls is not None) == url.startswith("valkeys:")


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("", VERIFIED),
        ("?max_connections=1", VERIFIED),
        ("?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ("?ssl_cert_reqs=Optional", {"ssl_cert_reqs": "optional", "ssl_check_hostname": True}),
        ("?ssl_check_hostname=False", {"ssl_cert_reqs": "required", "ssl_check_hostname": False}),
        (
            "?ssl_ca_certs=/a%20b/ca.pem&ssl_certfile=c&ssl_keyfile=k&ssl_password=p%25",
            {**VERIFIED, "ssl_ca_certs": "/a b/ca.pem", "ssl_certfile": "c", "ssl_keyfile": "k", "ssl_password": "p%"},
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_verifies_the_certificate_by_default(scheme: str, query: str, tls: dict[str, object]) -> None:
    address = BrokerAddress.of(f"{scheme}://:pw@h:1/2{query}")
    assert address.tls == tls
    assert address.for_redis == address.for_kombu == "rediss://:pw@h:1/2"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "amqp://h",
        "redis://",
        "redis://:hunter2/x@h:1",
        "redis://:hunter2@h:port",
        "redis://h/hunter2",
        "redis+socket://:hunter2@relative/x",
        "redis+socket://:hunter2@/x?virtual_host=a",
        "redis://[:hunter2",
        "redis://u:12/hunter2@h:1",
        "redis://u:12?hunter2@h:1",
        "redis://u:12#hunter2@h:1",
        "redis://:hunter2@h?ssl_ca_certs=x",
        "redis+socket://:hunter2@/x?ssl_keyfile=x",
        "rediss://:hunter2@h?ssl_cafile=x",
        "rediss://:hunter2@h?ssl_cert_reqs=sometimes",
    ],
)
def test_an_invalid_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerAddress.of(url)
    assert "hunter2" not in str(caught.value)


def test_text_and_repr_show_only_the_place() -> None:
    address = BrokerAddress.of("rediss://hunter1:hunter2@h:1/2?ssl_password=hunter3")
    assert str(address) == "h:1"
    assert "hunter" not in repr(address)
