"""Servers that answer with an error."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psycopg2
import redis
from psycopg2 import extensions

from tests.chaos.cluster import CONNECTIONS, ROLE, Cluster
from tests.chaos.faults.base import Expectation, Fault, Timing, keep_trying, problem
from tests.chaos.stack import wait_until


class BrokerRefuses(Fault):
    """The broker answers commands of the workers with an error."""

    expected = problem("broker")

    def inject(self) -> None:
        keep_trying(self.begin, 30, redis.RedisError)

    def end(self) -> None:
        keep_trying(self.undo, 60, redis.RedisError)

    def begin(self) -> None:
        raise NotImplementedError

    def undo(self) -> None:
        raise NotImplementedError

    def set(self, name: str, value: str) -> None:
        with self.cluster.redis() as client:
            client.config_set(name, value)


class Misconf(BrokerRefuses):
    """It cannot write its snapshot, so it refuses to change data: a folder has the name of the file."""

    name = "refusal: broker MISCONF"

    def begin(self) -> None:
        if self._file.is_file():
            self._file.unlink()  # of an earlier fault of this kind
        self._file.mkdir(exist_ok=True)
        self.set("save", "3600 1")
        self._save("err")

    def undo(self) -> None:
        if self._file.is_dir():
            self._file.rmdir()
        self._save("ok")
        self.set("save", "")

    @property
    def _file(self) -> Path:
        return self.cluster.broker.folder / "dump.rdb"

    def _save(self, wanted: str) -> None:
        """Save now, again and again, until the server reports the wanted result."""
        with self.cluster.redis() as client:

            def saved() -> bool:
                with suppress(redis.ResponseError):  # it saves just now
                    client.bgsave()
                return bool(client.info("persistence")["rdb_last_bgsave_status"] == wanted)

            wait_until(saved, 30, f"a BGSAVE with the result {wanted}", period=0.5)


class OutOfMemory(BrokerRefuses):
    name = "refusal: broker OOM"

    def begin(self) -> None:
        self.set("maxmemory", "1")

    def undo(self) -> None:
        self.set("maxmemory", "0")


class ReadOnlyReplica(BrokerRefuses):
    """A failover has made it a replica: it refuses to change data, and unblocks who waits for data."""

    name = "refusal: broker READONLY"

    def begin(self) -> None:
        with self.cluster.redis() as client:
            client.replicaof("127.0.0.1", "1")

    def undo(self) -> None:
        with self.cluster.redis() as client:
            client.replicaof("NO", "ONE")


class NoReplicas(BrokerRefuses):
    name = "refusal: broker NOREPLICAS"

    def begin(self) -> None:
        self.set("min-replicas-to-write", "1")

    def undo(self) -> None:
        self.set("min-replicas-to-write", "0")


class NoPermission(BrokerRefuses):
    """The rights of the workers' user are gone for a moment, as while a deployment changes them."""

    name = "refusal: broker NOPERM"

    def begin(self) -> None:
        self.rules("-@all", "+auth", "+ping", "+hello", "+client")

    def undo(self) -> None:
        self.rules("+@all")

    def rules(self, *rules: str) -> None:
        with self.cluster.redis() as client:
            client.execute_command("ACL", "SETUSER", ROLE, *rules)


class DatabaseRefuses(Fault):
    """The database accepts no writes, or no connections."""

    expected: ClassVar[Expectation | None] = problem("database")


class ReadOnlyDatabase(DatabaseRefuses):
    """It has become a standby after a failover, or its disk is nearly full."""

    name = "refusal: database read-only"

    def inject(self) -> None:
        keep_trying(lambda: self._set("on"), 30, psycopg2.Error)

    def end(self) -> None:
        keep_trying(lambda: self._set("off"), 60, psycopg2.Error)

    def _set(self, value: str) -> None:
        with self.cluster.superuser() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            cursor.execute("SELECT pg_reload_conf()")


class NoConnections(DatabaseRefuses):
    """Another program uses up all connections, also those that DIMS had."""

    name = "refusal: database without free connections"

    def __init__(self, cluster: Cluster, rng: random.Random, timing: Timing) -> None:
        super().__init__(cluster, rng, timing)
        self._held: list[extensions.connection] = []

    def inject(self) -> None:
        keep_trying(self._end_sessions, 30, psycopg2.Error)
        end = time.monotonic() + 3
        while time.monotonic() < end and len(self._held) < CONNECTIONS:
            try:
                self._held.append(self._connect())
            except psycopg2.Error:
                with suppress(psycopg2.Error):
                    self._end_sessions()

    def end(self) -> None:
        for connection in self._held:
            connection.close()
        self._held = []

    def _connect(self) -> extensions.connection:
        url = self.cluster.database_url.replace("+psycopg2", "").replace("?", "")
        return psycopg2.connect(url, connect_timeout=5, application_name="another program")

    def _end_sessions(self) -> None:
        with self.cluster.superuser() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = %s AND application_name <> 'another program'",
                [ROLE],
            )


class MissingRight(DatabaseRefuses):
    """An administrator takes the right to write a table."""

    name = "refusal: database without a right"
    tables = ("dims_event_log", "dims_metrics", "dims_verification_runs")

    def inject(self) -> None:
        table = self.rng.choice(self.tables)
        self.detail = table
        keep_trying(lambda: self._execute(f"REVOKE INSERT, UPDATE ON {table} FROM {ROLE}"), 30, psycopg2.Error)

    def end(self) -> None:
        if self.detail:
            keep_trying(lambda: self._execute(f"GRANT INSERT, UPDATE ON {self.detail} TO {ROLE}"), 60, psycopg2.Error)

    def _execute(self, statement: str) -> None:
        with self.cluster.superuser() as cursor:
            cursor.execute(statement)


class EndedSessions(DatabaseRefuses):
    """An administrator ends all sessions, once."""

    name = "refusal: database ends all sessions"
    holds = False
    expected = None

    def inject(self) -> None:
        keep_trying(self._end_sessions, 30, psycopg2.Error)

    def _end_sessions(self) -> None:
        with self.cluster.superuser() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [ROLE])


class LockedTable(DatabaseRefuses):
    """A session of another program holds a lock on a table that every step writes."""

    name = "refusal: database table locked"

    def __init__(self, cluster: Cluster, rng: random.Random, timing: Timing) -> None:
        super().__init__(cluster, rng, timing)
        self._connection: extensions.connection | None = None

    def inject(self) -> None:
        keep_trying(self._lock, 30, psycopg2.Error)

    def _lock(self) -> None:
        self.end()
        url = self.cluster.database.url.replace("+psycopg2", "")
        self._connection = psycopg2.connect(url, connect_timeout=5, application_name="another program")
        with self._connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '20s'")
            cursor.execute("LOCK TABLE dims_metrics IN ACCESS EXCLUSIVE MODE")

    def end(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None
