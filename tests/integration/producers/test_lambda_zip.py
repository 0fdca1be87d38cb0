"""The zip of the S3 Lambda, unpacked where nothing else is on the path, against a real Valkey."""

from __future__ import annotations

import json
import marshal
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, PathDistribution
from pathlib import Path
from typing import Any

import pytest

from dims_producers import lambda_zip
from dims_worker.errors import ServiceError
from tests.conftest import REPO
from tests.fixtures.s3_notifications import notification, record, sqs

RUN = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from dims_producers.s3_lambda import handler
payload = json.load(sys.stdin)
answer = handler(payload, None)
files = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(json.dumps([answer, files, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lambda") / "new folder" / "dims.zip"
    assert lambda_zip.build(file) > 100
    return file


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    folder = built.parent / "task"
    with zipfile.ZipFile(built) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


def call(unpacked: Path, payload: Any, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-B", "-c", RUN, str(unpacked)]
    return subprocess.run(
        command,
        input=json.dumps(payload),
        env={"DIMS_BROKER_URL": url},
        cwd=unpacked.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_unpacked_zip_runs_without_other_packages(unpacked: Path, valkey: Any) -> None:
    done = call(unpacked, sqs(notification(record("a+b")), "{torn"), valkey.url)
    assert done.returncode == 0, done.stderr
    answer, files, modules = json.loads(done.stdout)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert [event.subject for event in valkey.events()] == ["a b"]
    assert not [file for file in files if "site-packages" in file]
    rooms = {name for name in modules if name.partition(".")[0] in ("dims_producers", "dims_worker")}
    packed = {
        ".".join(path.relative_to(unpacked).with_suffix("").parts).removesuffix(".__init__")
        for name in ("dims_producers", "dims_worker")
        for path in (unpacked / name).rglob("*.py")
    }
    assert rooms == packed  # nothing that it does not need
    assert "redis" in modules


def test_the_unpacked_zip_raises_if_the_broker_is_unreachable(unpacked: Path, valkey: Any) -> None:
    valkey.stop()
    done = call(unpacked, notification(record()), valkey.url)
    valkey.start()
    assert done.returncode and "BrokerUnreachable" in done.stderr and "pass%20word" not in done.stderr


def test_the_zip_is_compiled_and_nothing_is_compiled_again(unpacked: Path) -> None:
    names = {path.stem for path in unpacked.rglob("*.py")}
    compiled = {path.name.partition(".")[0] for path in unpacked.rglob("*.pyc")}
    assert names == compiled and len(names) > 50
    for path in unpacked.rglob("*.pyc"):
        data = path.read_bytes()
        assert data[4:8] == b"\x01\0\0\0"  # PEP 552: an unchecked hash
        source = path.parents[1] / f"{path.name.partition('.')[0]}.py"
        assert marshal.loads(data[16:]).co_filename == source.relative_to(unpacked).as_posix()


def test_the_same_files_give_the_same_zip(built: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    command = [sys.executable, "-m", "dims_producers.lambda_zip", str(again)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == built.read_bytes()
    size = f"{built.stat().st_size / 1e6:.2f} MB"
    assert size in done.stdout and built.stat().st_size < 5e6
    assert re.search(r"cold import: \d+ ms", done.stdout)


def test_all_files_are_readable_and_the_licence_is_included(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert [info for info in infos if re.fullmatch(r"redis-[\d.]+\.dist-info/(licenses/)?LICENSE", info.filename)]


def _installed(folder: Path, name: str, needs: list[str], files: list[str]) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Name: {name}\nVersion: 1.0\n" + "".join(f"Requires-Dist: {need}\n" for need in needs)
    )
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*files, f"{info.name}/METADATA"]))


def test_installed_dependencies_of_redis_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [
        "async-timeout>=4; python_full_version < '3.11.3'",
        "absent>=1; python_version < '3'",
        "hiredis; extra == 'hiredis'",
    ]
    _installed(tmp_path, "redis", needs, ["redis/__init__.py", "redis/data.bin"])
    _installed(tmp_path, "async-timeout", ["redis"], ["async_timeout/__init__.py"])
    _installed(tmp_path, "hiredis", [], ["hiredis/__init__.py"])
    monkeypatch.setattr(lambda_zip, "distribution", lambda name: _found(tmp_path, name))
    packed = [target for target, _ in lambda_zip._theirs("redis", set())]
    assert packed == [
        "redis/__init__.py",
        "redis-1.0.dist-info/METADATA",
        "async_timeout/__init__.py",
        "async-timeout-1.0.dist-info/METADATA",
    ]


def test_a_package_compiled_for_this_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _installed(tmp_path, "redis", [], ["redis/fast.cpython-311-x86_64-linux-gnu.so"])
    monkeypatch.setattr(lambda_zip, "distribution", lambda name: _found(tmp_path, name))
    with pytest.raises(ServiceError, match="compiled for this machine"):
        lambda_zip.build(tmp_path / "out.zip")
    assert lambda_zip.main([str(tmp_path / "out.zip")]) == 3
    assert "compiled for this machine" in capsys.readouterr().err


def _found(folder: Path, name: str) -> PathDistribution:
    info = folder / f"{name}-1.0.dist-info"
    if not info.is_dir():
        raise PackageNotFoundError(name)
    return PathDistribution(info)


def test_make_lambda_builds_the_zip() -> None:
    done = subprocess.run(["make", "-n", "lambda"], cwd=REPO, capture_output=True, text=True, check=True)
    assert "-m dims_producers.lambda_zip build/dims-s3-lambda.zip" in done.stdout
    clean = subprocess.run(["make", "-n", "clean"], cwd=REPO, capture_output=True, text=True, check=True)
    assert re.search(r"rm -rf .* build\b", clean.stdout)
