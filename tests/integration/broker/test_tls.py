"""TLS and passwords in URLs: producers, Celery, the worker, Flower and the database, with new certificates.

The servers out of the wheels are built without TLS, so it ends at a small proxy in front of the plain ones.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kombu.exceptions
import pytest
from redis import Redis
from sqlalchemy import text

from dims_producers.publish import publish
from dims_worker import local
from dims_worker.cli.up import flower_variables
from dims_worker.errors import BrokerUnreachable, DatabaseUnreachable
from dims_worker.events import STREAM, Event
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.engine import transaction
from dims_worker.worker.celery_app import build_app
from tests.conftest import Project, Worker, wait_for

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")

PASSWORD = "pa ss/%@:#?&=+é"
CONFIG = (
    "settings: {sweep: 1s}\nsources: {project: {type: files, path: '.'}}\nrules: {any: {on: dims.scraper.complete}}\n"
)


class TlsProxy:
    """Terminates TLS in front of a local server, a thread per connection. With `postgres`, the client requests TLS."""

    def __init__(self, context: ssl.SSLContext, target: int, *, postgres: bool = False) -> None:
        self._context, self._target, self._postgres = context, target, postgres
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            connection.settimeout(30)
            if self._postgres:  # SSLRequest: https://www.postgresql.org/docs/current/protocol-message-formats.html
                if connection.recv(8) != b"\x00\x00\x00\x08\x04\xd2\x16\x2f":
                    return
                connection.sendall(b"S")
            with (
                self._context.wrap_socket(connection, server_side=True) as outer,
                socket.create_connection(("127.0.0.1", self._target)) as inner,
            ):
                self._open += [outer, inner]
                while True:
                    ready = [outer] if outer.pending() else select.select([outer, inner], [], [], 30)[0]
                    for connection in ready:
                        data = connection.recv(65_536)
                        if not data:
                            return
                        (inner if connection is outer else outer).sendall(data)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the authorities `ca` and `other`, and certificates of `ca`: `server`, `elsewhere`, `client`."""
    folder = tmp_path_factory.mktemp("papers")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)

    def request(name: str, *words: str) -> None:
        openssl(
            "req",
            *words,
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
        )

    for name in ("ca", "other"):
        request(name, "-x509", "-out", f"{name}.pem", "-days", "2")
    for name, names in (("server", "IP:127.0.0.1"), ("elsewhere", "DNS:db.example.org"), ("client", "DNS:dims")):
        request(name, "-out", f"{name}.csr")
        (folder / "names").write_text(f"subjectAltName={names}\n")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            f"{name}.pem",
            "-extfile",
            "names",
        )
    openssl("ec", "-aes256", "-passout", "pass:key pass%", "-in", "client.key", "-out", "locked.key")
    return folder


Tls = Callable[..., TlsProxy]


@pytest.fixture
def tls(papers: Path) -> Iterator[Tls]:
    """Start proxies in front of a port, with a certificate. They may require one from the client."""
    started: list[TlsProxy] = []

    def start(target: int, certificate: str = "server", *, asks: bool = False, postgres: bool = False) -> TlsProxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(papers / f"{certificate}.pem", papers / f"{certificate}.key")
        if asks:
            context.load_verify_locations(papers / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        started.append(TlsProxy(context, target, postgres=postgres))
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


@pytest.fixture
def plain(servers: local.ServerUrls, broker_url: str) -> Iterator[Redis]:
    """The test's database of the broker, with a user `special` whose password has special characters."""
    with Redis.from_url(broker_url) as client:
        client.acl_setuser(
            "special",
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            keys=["*"],
            channels=["*"],
            commands=["+@all"],
            reset=True,
        )
        yield client
        client.acl_deluser("special")


def port_of(url: str | None) -> int:
    return int(urlsplit(str(url)).port or 0)


def url_to(proxy: TlsProxy, plain: Redis, *options: str, scheme: str = "rediss") -> str:
    database = plain.connection_pool.connection_kwargs["db"]
    query = f"?{'&'.join(options)}" if options else ""
    return f"{scheme}://special:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}/{database}{query}"


def event(id: str) -> Event:
    return Event.new("dims.scraper.complete", "test", now=datetime.now(UTC), id=id)


def connects(project: Project, url: str) -> None:
    """Celery's connection, with the settings of the worker, beat and Flower."""
    project.write({"dims.yaml": CONFIG})
    project.env["DIMS_BROKER_URL"] = url
    app = build_app(project.config)
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        connection.default_channel.client.ping()


CLIENT = ["ssl_ca_certs=ca.pem", "ssl_certfile=client.pem"]
GOOD: list[tuple[str, list[str], bool]] = [
    ("server", ["ssl_ca_certs=ca.pem"], False),
    ("server", ["ssl_ca_certs=ca.pem", "ssl_cert_reqs=required"], False),
    ("server", ["ssl_cert_reqs=none"], False),
    ("server", ["ssl_cert_reqs=CERT_NONE"], False),
    ("elsewhere", ["ssl_ca_certs=ca.pem", "ssl_check_hostname=false"], False),
    ("server", [*CLIENT, "ssl_keyfile=client.key"], True),
    ("server", [*CLIENT, "ssl_keyfile=locked.key", "ssl_password=key%20pass%25"], True),
]
BAD: list[tuple[str, list[str], bool]] = [
    ("server", [], False),
    ("server", ["ssl_ca_certs=other.pem"], False),
    ("server", ["ssl_ca_certs=other.pem", "ssl_cert_reqs=optional"], False),
    ("elsewhere", ["ssl_ca_certs=ca.pem"], False),
    ("server", ["ssl_ca_certs=ca.pem"], True),
    ("server", ["ssl_ca_certs=ca.pem", "ssl_certfile=other.pem", "ssl_keyfile=other.key"], True),
]


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
@pytest.mark.parametrize(("certificate", "options", "asks"), GOOD)
def test_the_right_certificates_are_accepted(
    servers: local.ServerUrls,
    project: Project,
    plain: Redis,
    tls: Tls,
    papers: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
    options: list[str],
    asks: bool,
    scheme: str,
) -> None:
    monkeypatch.chdir(papers)
    url = url_to(tls(port_of(servers.broker_url), certificate, asks=asks), plain, *options, scheme=scheme)
    publish([event("1"), event("2")], url)
    assert plain.xlen(STREAM) == 2
    connects(project, url)


@pytest.mark.parametrize(("certificate", "options", "asks"), BAD)
def test_every_client_refuses_wrong_certificates(
    servers: local.ServerUrls,
    project: Project,
    plain: Redis,
    tls: Tls,
    papers: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
    options: list[str],
    asks: bool,
) -> None:
    monkeypatch.chdir(papers)
    proxy = tls(port_of(servers.broker_url), certificate, asks=asks)
    url = url_to(proxy, plain, *options)
    with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{proxy.port}") as caught:
        publish([event("1")], url)
    assert PASSWORD not in str(caught.value)
    assert quote(PASSWORD, safe="") not in str(caught.value)
    assert plain.xlen(STREAM) == 0
    with pytest.raises(kombu.exceptions.OperationalError) as refused:
        connects(project, url)
    assert asks or "CERTIFICATE_VERIFY_FAILED" in str(refused.value)


def test_a_worker_and_flower_run_over_tls_with_this_password(
    servers: local.ServerUrls,
    project: Project,
    plain: Redis,
    tls: Tls,
    papers: Path,
    start_worker: Callable[..., Worker],
    database_url: str,
) -> None:
    broker = tls(port_of(servers.broker_url))
    database = tls(port_of(servers.database_url), postgres=True)
    project.env["DIMS_BROKER_URL"] = url_to(broker, plain, f"ssl_ca_certs={papers}/ca.pem")
    project.env["DIMS_DATABASE_URL"] = (
        database_url.replace(f":{port_of(database_url)}/", f":{database.port}/").replace("+psycopg2", "")
        + f"?sslmode=verify-full&sslrootcert={papers}/ca.pem"
    )
    project.write({"dims.yaml": CONFIG})
    worker = start_worker(concurrency=1)
    publish([event("over tls")], project.env["DIMS_BROKER_URL"])
    wait_for(lambda: "over tls" in project.dims("events", "--json").stdout)
    assert "up, 0 events waiting" in project.dims("status").stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    env = {**os.environ, **project.env, **flower_variables({"DIMS_FLOWER_PORT": port})}
    flower = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "dims_worker.tasks", "flower", f"--conf={env['DIMS_FLOWER_CONFIG']}"],
        cwd=project.folder,
        env=env,
    )

    def queues() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/broker", timeout=10) as answer:
            page = answer.read().decode()
            return "<td>dims.verify</td>" in page and "No queue data" not in page
        return False

    try:
        wait_for(queues)
    finally:
        flower.kill()
        flower.wait(10)
    log = worker.log.read_text()
    assert "insecure SSL" not in log
    worker.kill()


@pytest.mark.parametrize(
    ("certificate", "options", "works"),
    [
        ("server", "sslmode=verify-full&sslrootcert=ca.pem", True),
        ("elsewhere", "sslmode=verify-ca&sslrootcert=ca.pem", True),
        ("elsewhere", "sslmode=verify-full&sslrootcert=ca.pem", False),
        ("server", "sslmode=verify-full&sslrootcert=other.pem", False),
        ("server", "sslmode=disable", False),
    ],
)
def test_the_tls_options_of_the_database_url_reach_libpq(
    servers: local.ServerUrls,
    project: Project,
    database_url: str,
    tls: Tls,
    papers: Path,
    certificate: str,
    options: str,
    works: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(papers)
    proxy = tls(port_of(database_url), certificate, postgres=True)
    project.write({"dims.yaml": CONFIG})
    project.env["DIMS_DATABASE_URL"] = (
        f"{database_url.replace(f':{port_of(database_url)}/', f':{proxy.port}/')}?{options}"
    )
    engine = engine_of(str(project.config.database_url))
    try:
        if works:
            with transaction(engine) as connection:
                raw: Any = connection.connection.dbapi_connection
                assert raw.info.ssl_in_use
                assert connection.execute(text("SELECT 1")).scalar() == 1
        else:
            password = urlsplit(database_url).password
            with pytest.raises(DatabaseUnreachable) as caught, transaction(engine):
                pass
            assert str(password) not in str(caught.value)
    finally:
        engine.dispose()
