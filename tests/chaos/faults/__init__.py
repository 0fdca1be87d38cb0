"""The faults of the chaos test, one class each."""

from __future__ import annotations

from tests.chaos.faults import clocks, disks, kills, load, networks, refusals, stalls
from tests.chaos.faults.base import Expectation, Fault, Timing

FAULTS: tuple[type[Fault], ...] = (
    kills.KillMain,
    kills.KillChild,
    kills.KillBroker,
    kills.KillDatabase,
    kills.KillBeat,
    kills.KillSupervisor,
    kills.KillBurst,
    kills.PausedScan,
    stalls.StallWorker,
    stalls.StallIngest,
    stalls.StallChildren,
    stalls.StallBroker,
    stalls.StallDatabase,
    stalls.StallBeat,
    stalls.StallWorkerForEver,
    stalls.StallIngestForEver,
    stalls.StallChildrenForEver,
    refusals.Misconf,
    refusals.OutOfMemory,
    refusals.ReadOnlyReplica,
    refusals.NoReplicas,
    refusals.NoPermission,
    refusals.ReadOnlyDatabase,
    refusals.NoConnections,
    refusals.MissingRight,
    refusals.EndedSessions,
    refusals.LockedTable,
    disks.FullDatabaseDisk,
    disks.FullBrokerDisk,
    disks.FullHomeDisk,
    load.Starvation,
    load.HeldGil,
    load.OperatorStops,
    clocks.HostAhead,
    clocks.HostBehind,
    clocks.BeatAhead,
    clocks.BeatBehind,
    networks.CutPlainHost,
    networks.CutNamespace,
    networks.CutBroker,
    networks.CutDatabase,
    networks.Refused,
    networks.DeadBrokerConnections,
    networks.DeadDatabaseConnections,
    networks.ChangedAddress,
)

__all__ = ["FAULTS", "Expectation", "Fault", "Timing"]
