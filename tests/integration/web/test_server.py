"""`dims web` as a process: where it listens, signing in by its link, how it ends, what it tells nobody."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Project, wait_for

CONFIG = "web: {tokens: {ada: '${TOKEN_ADA}'}}\n"
TOKEN = "mark-of-ada-" + "x" * 20


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    url: str
    said: Path

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@pytest.fixture
def serve(project: Project, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """`serve("--port", "0")`: `dims web` once it listens."""
    started: list[subprocess.Popen[bytes]] = []
    project.write({"dims.yaml": CONFIG})
    project.env["TOKEN_ADA"] = TOKEN

    def made(*arguments: str) -> Served:
        said = tmp_path / f"web{len(started)}.log"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "dims_worker", "web", *arguments],
                cwd=project.folder, env={**os.environ, **project.env}, stdout=output, stderr=output,
            )  # fmt: skip
        started.append(process)
        found = wait_for(lambda: re.search(r"the dashboard at (\S+) ", said.read_text()) or process.poll() is not None)
        assert found is not True, said.read_text()
        wait_for(lambda: _answers(found[1]))
        return Served(process, found[1], said)

    yield made
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_link_signs_in_and_a_secret_is_told_nowhere(serve: Callable[..., Served], project: Project) -> None:
    served = serve("--port", "0")
    assert served.url.startswith("http://127.0.0.1:")
    link = project.dims("web", "--link", "--as", "eve", check=True).stdout.strip()
    assert link.startswith(f"{served.url}/sign-in?code=")
    code = link.partition("code=")[2]
    with httpx2.Client(base_url=served.url) as client:
        assert "Sign in as eve" in client.get("/sign-in", params={"code": code}).text
        assert client.post("/sign-in", data={"code": code}).status_code == 303
        assert ">eve<" in client.get("/nowhere").text
    assert httpx2.post(f"{served.url}/sign-in", data={"token": "wrong-mark-" + "x" * 20}).status_code == 403
    assert served.end() == 143  # by SIGTERM, as any command
    said = served.said.read_text()
    secret = (Path(project.env["DIMS_HOME"]) / "run" / "web_secret").read_text()
    assert "a sign-in failed, from 127.0.0.1" in said
    for one in (TOKEN, code, secret, "wrong-mark", "Traceback"):
        assert one not in said


def test_a_link_leads_to_a_page_that_answers(serve: Callable[..., Served], project: Project) -> None:
    first, second = serve("--port", "0"), serve("--port", "0")
    assert project.dims("web", "--link", check=True).stdout.startswith(second.url)
    second.end()
    assert project.dims("web", "--link", check=True).stdout.startswith(first.url)
    first.process.kill()  # it can tell nobody that it is gone
    first.process.wait(10)
    done = project.dims("web", "--link")
    assert (done.returncode, done.stdout, f"no dashboard answers at {first.url}" in done.stderr) == (3, "", True)
    serve("--port", "0").end()
    assert project.dims("web", "--link").returncode == 3


def test_a_link_waits_for_a_page_that_is_about_to_be_served(project: Project) -> None:
    slow = f"web: sh -c 'sleep 3; exec {sys.executable} -m dims_worker web --port 0'\n"
    project.write({"dims.yaml": CONFIG, "Procfile": slow})
    project.env["TOKEN_ADA"] = TOKEN
    up = project.dims("up", "--detach", "--procfile", "Procfile", check=True)
    assert up.stdout.startswith("DIMS is up: web. ")  # the servers are others', and are not told of as stopped
    try:
        assert not (Path(project.env["DIMS_HOME"]) / "run" / "web.json").exists()  # it is not served yet
        assert project.dims("web", "--link", check=True).stdout.startswith("http://127.0.0.1:")
    finally:
        project.dims("down", check=True)
    assert project.dims("web", "--link").returncode == 3


def test_it_ends_while_somebody_listens(serve: Callable[..., Served]) -> None:
    served = serve("--port", "0")
    with httpx2.Client(base_url=served.url) as client:
        client.post("/sign-in", data={"token": TOKEN})
        with client.stream("GET", "/live") as stream:
            assert stream.status_code == 200
            assert served.end() == 143  # by SIGTERM, as any command


def test_a_port_that_is_taken_is_named(project: Project) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = project.dims("web", "--port", str(port))
    assert (done.returncode, f"127.0.0.1:{port} cannot be listened on" in done.stderr) == (3, True)
    assert "`dims web --link`" in done.stderr and "`--port 0` takes a free port" in " ".join(done.stderr.split())


def test_a_link_needs_a_page_and_a_name_needs_a_link(project: Project) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    done = project.dims("web", "--link")
    assert (done.returncode, "no dashboard is running for" in done.stderr) == (3, True)
    assert project.dims("web", "--as", "eve").returncode == 2
    done = project.dims("web", "--link", "--port", "1")
    assert done.returncode == 2 and "it excludes --address and --port" in " ".join(done.stderr.split())


@pytest.mark.parametrize("secret", ["", " ", "a", "x" * 19])
def test_a_secret_that_can_be_guessed_signs_nothing(project: Project, secret: str) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    project.env["DIMS_WEB_SECRET"] = secret
    done = project.dims("web", "--port", "0")
    assert (done.returncode, "DIMS_WEB_SECRET is shorter than 20 characters" in done.stderr) == (2, True)


def test_a_secret_that_was_cut_short_signs_nothing(project: Project) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    kept = Path(project.env["DIMS_HOME"]) / "run" / "web_secret"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("")
    done = project.dims("web", "--port", "0")
    assert (done.returncode, "web_secret is incomplete. Delete it" in done.stderr) == (2, True)


def test_a_short_token_is_refused_where_it_is_written(project: Project) -> None:
    project.write({"dims.yaml": CONFIG})
    done = project.dims("config", "check")
    assert done.returncode == 2
    project.env["TOKEN_ADA"] = "mark-short"
    done = project.dims("config", "check")
    assert done.returncode == 2
    assert "web.tokens.ada" in done.stdout + done.stderr
    assert "shorter than 20" in done.stdout + done.stderr
    assert "mark-short" not in done.stdout + done.stderr
