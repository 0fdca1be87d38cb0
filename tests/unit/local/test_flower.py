from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import dims_worker
from dims_worker.cli.up import flower_variables
from dims_worker.errors import ConfigError
from dims_worker.local.flower import flower_access, format_task_arguments


def test_by_default_flower_listens_on_this_machine_without_a_password() -> None:
    access = flower_access({"DIMS_FLOWER_ADDRESS": "", "DIMS_FLOWER_PORT": " ", "DIMS_FLOWER_AUTH": ""})
    assert access == flower_access({})
    assert (access.address, access.port, access.auth, access.url) == ("127.0.0.1", 5555, (), "http://127.0.0.1:5555")


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_a_loopback_address_needs_no_password(address: str) -> None:
    assert flower_access({"DIMS_FLOWER_ADDRESS": address}).address == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "flower.example.org", "2001:db8::1"])
def test_any_other_address_needs_a_password(address: str) -> None:
    with pytest.raises(ConfigError, match="Set DIMS_FLOWER_AUTH=user:password, or remove DIMS_FLOWER_ADDRESS"):
        flower_access({"DIMS_FLOWER_ADDRESS": address})
    for name in ("DIMS_FLOWER_AUTH", "FLOWER_BASIC_AUTH"):
        access = flower_access({"DIMS_FLOWER_ADDRESS": address, name: "ada:hunter2, bob:a:b"})
        assert access.auth == ("ada:hunter2", "bob:a:b")
        assert "hunter2" not in repr(access) + access.url
    assert flower_access({"DIMS_FLOWER_ADDRESS": "::1", "DIMS_FLOWER_PORT": "80"}).url == "http://[::1]:80"


@pytest.mark.parametrize("auth", ["hunter2", "ada:", ":hunter2", "ada:hunter2,bob", "ada:hünter2"])
def test_an_invalid_pair_is_refused_and_not_shown(auth: str) -> None:
    with pytest.raises(ConfigError, match="user:password") as caught:
        flower_access({"DIMS_FLOWER_AUTH": auth})
    assert "nter2" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "80.0"])
def test_an_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match="DIMS_FLOWER_PORT"):
        flower_access({"DIMS_FLOWER_PORT": port})


def test_an_api_that_any_web_page_could_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="DIMS_FLOWER_AUTH"):
        flower_access({"FLOWER_UNAUTHENTICATED_API": "true"})
    flower_access({"FLOWER_UNAUTHENTICATED_API": "true", "DIMS_FLOWER_AUTH": "ada:x"})  # it has no effect then
    flower_access({"FLOWER_UNAUTHENTICATED_API": "false"})


@pytest.mark.parametrize(
    ("shown", "read"),
    [
        ("('lake',)", "lake"),
        ("()", ""),
        ("{}", ""),
        ("None", ""),
        ("'28 events stored'", "28 events stored"),
        ("lake · s3_upload_complete · 28 events · dims events show 1234",) * 2,
        (None, None),
        ("", ""),
        ("('a', 1)", "a, 1"),
        ("{'a': 1}", "{'a': 1}"),
        ("0", "0"),
        ("('lak...", "('lak..."),
        ("(" * 10_000,) * 2,
    ],
)
def test_the_arguments_of_a_task_are_shown_as_plain_text(shown: str | None, read: str | None) -> None:
    task = SimpleNamespace(args=shown, kwargs=shown, result=shown)
    assert format_task_arguments(task) is task
    assert (task.args, task.kwargs, task.result) == (read, read, read)


def test_dims_up_passes_a_free_port_and_the_configuration_file_to_flower() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        variables = flower_variables({"DIMS_FLOWER_PORT": port})
        assert variables["DIMS_FLOWER_PORT"] == port  # a port that you name is used
    root = Path(dims_worker.__file__).parents[1]
    assert variables["DIMS_FLOWER_CONFIG"] == str(root / "config" / "flowerconfig.py")
    assert flower_variables({"DIMS_FLOWER_CONFIG": "mine.py"})["DIMS_FLOWER_CONFIG"] == "mine.py"
    assert flower_variables({})["DIMS_FLOWER_PORT"].isdecimal()
    # An installed package has both files beside its modules
    built = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built["force-include"]["config/flowerconfig.py"] == "dims_worker/flowerconfig.py"
    assert built["force-include"]["Procfile"] == "dims_worker/Procfile"
