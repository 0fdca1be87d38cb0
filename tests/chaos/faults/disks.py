"""Disks that are full for some seconds. Each is a small file system of its own."""

from __future__ import annotations

from contextlib import suppress

import psycopg2

from tests.chaos.cluster import DISKS, SUPERVISED
from tests.chaos.faults.base import Fault, problem


class FullDisk(Fault):
    """Fills the disk under a data directory, and frees it again."""

    needs = "disk"
    disk: str

    def inject(self) -> None:
        self.cluster.disks[self.disk].fill()

    def end(self) -> None:
        if self.disk in self.cluster.disks:
            self.cluster.disks[self.disk].free()


class FullDatabaseDisk(FullDisk):
    name = "full disk: database"
    expected = problem("database|disk")
    disk = "database"

    def inject(self) -> None:
        super().inject()
        with suppress(psycopg2.Error):  # the server ends when it cannot write its log
            self._use_up_log()

    def _use_up_log(self) -> None:
        """Write to the log until it needs a new file. The server keeps a few files in advance."""
        with self.cluster.superuser() as cursor:
            for _ in range(DISKS["database"]):
                cursor.execute("SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 1000000))")


class FullBrokerDisk(FullDisk):
    name = "full disk: broker"
    expected = problem("broker|disk")
    disk = "broker"


class FullHomeDisk(FullDisk):
    """The data directory of the supervisor, with its logs and its list of processes."""

    name = "full disk: supervisor"
    expected = None
    disk = SUPERVISED
