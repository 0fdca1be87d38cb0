"""`dims web` as a process: its socket, sign-in links, how it ends, and that it logs no secrets."""

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
    output: Path

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@pytest.fixture
def serve(project: Project, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """`serve("--port", "0")` starts `dims web` and waits until it listens."""
    started: list[subprocess.Popen[bytes]] = []
    project.write({"dims.yaml": CONFIG})
    project.env["TOKEN_ADA"] = TOKEN

    def start(*arguments: str) -> Served:
        output = tmp_path / f"web{len(started)}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dims_worker", "web", *arguments],
                cwd=project.folder,
                env={**os.environ, **project.env},
                stdout=file,
                stderr=file,
            )
        started.append(process)
        match = wait_for(
            lambda: re.search(r"the dashboard at (\S+) ", output.read_text()) or process.poll() is not None
        )
        assert match is not True, output.read_text()
        wait_for(lambda: _answers(match[1]))
        return Served(process, match[1], output)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_link_signs_in_and_no_secret_is_logged(serve: Callable[..., Served], project: Project) -> None:
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
    assert served.end() == 143  # by SIGTERM
    output = served.output.read_text()
    secret = (Path(project.env["DIMS_HOME"]) / "run" / "web_secret").read_text()
    assert "sign-in failed, from 127.0.0.1" in output
    for secret_text in (TOKEN, code, secret, "wrong-mark", "Traceback"):
        assert secret_text not in output


def test_a_link_leads_to_a_page_that_answers(serve: Callable[..., Served], project: Project) -> None:
    first, second = serve("--port", "0"), serve("--port", "0")
    assert project.dims("web", "--link", check=True).stdout.startswith(second.url)
    second.end()
    assert project.dims("web", "--link", check=True).stdout.startswith(first.url)
    first.process.kill()  # killed, so it cannot remove web.json
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
    assert up.stdout.startswith("DIMS is up: web. ")  # the servers are not part of this stack, so they are not listed
    try:
        assert not (Path(project.env["DIMS_HOME"]) / "run" / "web.json").exists()  # not serving yet
        assert project.dims("web", "--link", check=True).stdout.startswith("http://127.0.0.1:")
    finally:
        project.dims("down", check=True)
    assert project.dims("web", "--link").returncode == 3


def test_the_server_stops_while_a_stream_is_open(serve: Callable[..., Served]) -> None:
    served = serve("--port", "0")
    with httpx2.Client(base_url=served.url) as client:
        client.post("/sign-in", data={"token": TOKEN})
        with client.stream("GET", "/live") as stream:
            assert stream.status_code == 200
            assert served.end() == 143  # by SIGTERM


def test_a_port_in_use_is_an_error_with_the_fix(project: Project) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = project.dims("web", "--port", str(port))
    assert (done.returncode, f"cannot listen on 127.0.0.1:{port}: " in done.stderr) == (3, True)
    assert "`dims web --link`" in done.stderr and "`--port 0` for a free port" in " ".join(done.stderr.split())


def test_a_link_needs_a_running_dashboard_and_a_name_needs_a_link(project: Project) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    done = project.dims("web", "--link")
    assert (done.returncode, "no dashboard is running for" in done.stderr) == (3, True)
    assert project.dims("web", "--as", "eve").returncode == 2
    done = project.dims("web", "--link", "--port", "1")
    assert done.returncode == 2 and "it excludes --address and --port" in " ".join(done.stderr.split())


@pytest.mark.parametrize("secret", ["", " ", "a", "x" * 19])
def test_a_secret_that_can_be_guessed_is_refused(project: Project, secret: str) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    project.env["DIMS_WEB_SECRET"] = secret
    done = project.dims("web", "--port", "0")
    assert (done.returncode, "DIMS_WEB_SECRET is shorter than 20 characters" in done.stderr) == (2, True)


def test_a_truncated_secret_file_is_refused(project: Project) -> None:
    project.write({"dims.yaml": CONFIG.replace("${TOKEN_ADA}", "")})
    kept = Path(project.env["DIMS_HOME"]) / "run" / "web_secret"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("")
    done = project.dims("web", "--port", "0")
    assert (done.returncode, "web_secret is incomplete. Delete it" in done.stderr) == (2, True)


def test_a_short_token_is_a_configuration_error(project: Project) -> None:
    project.write({"dims.yaml": CONFIG})
    done = project.dims("config", "check")
    assert done.returncode == 2
    project.env["TOKEN_ADA"] = "mark-short"
    done = project.dims("config", "check")
    assert done.returncode == 2
    assert "web.tokens.ada" in done.stdout + done.stderr
    assert "shorter than 20" in done.stdout + done.stderr
    assert "mark-short" not in done.stdout + done.stderr
