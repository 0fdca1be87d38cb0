"""Disks that are full for some seconds. Each is a small file system of its own."""

from __future__ import annotations

from tests.chaos.cluster import SUPERVISED
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


class FullBrokerDisk(FullDisk):
    name = "full disk: broker"
    expected = problem("broker|disk")
    disk = "broker"


class FullHomeDisk(FullDisk):
    """The data directory of the supervisor, with its logs and its list of processes."""

    name = "full disk: supervisor"
    expected = None
    disk = SUPERVISED
