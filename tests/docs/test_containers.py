"""docker-compose.yml runs what the Procfile runs, and publishes on this host alone."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from dims_worker.local import procfile
from tests.docs.pages import REPO


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))


def test_compose_has_the_services_and_publishes_on_this_host_alone(compose: Any) -> None:
    assert {"postgres", "valkey", "worker", "slow-worker", "beat", "flower", "web"} <= compose["services"].keys()
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
    for service in compose["services"].values():
        assert "network_mode" not in service


@pytest.mark.parametrize("name", ["worker", "slow-worker", "beat", "flower", "web"])
def test_compose_runs_what_the_procfile_runs(compose: Any, name: str) -> None:
    entries = {entry.name: entry for entry in procfile.parse((REPO / "Procfile").read_text(encoding="utf-8"))}
    own = re.compile(r"\S*beat-schedule|(?<=--conf=)\S+")  # a container has these in another place
    words = [compose["services"][name]["command"], list(entries[name].words)]
    theirs, ours = ([own.sub("", word) for word in command] for command in words)
    assert theirs == ours


def test_compose_and_the_programs_of_the_procfile_are_words_not_shell() -> None:
    for line in procfile.parse((REPO / "Procfile").read_text(encoding="utf-8")):
        assert shlex.join(line.words)
        assert not set(" ".join(line.words)) & set("|;&<>`")


def test_docker_accepts_the_composition() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("`docker compose` is not installed here, so it did not check docker-compose.yml")
    secrets = {"DIMS_POSTGRES_PASSWORD": "a", "DIMS_VALKEY_PASSWORD": "b", "DIMS_FLOWER_AUTH": "c:d"}
    env = {**secrets, "PATH": "/usr/bin:/bin:/usr/local/bin"}
    command = [docker, "compose", "config", "--quiet"]
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
