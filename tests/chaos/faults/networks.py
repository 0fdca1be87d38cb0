"""Hosts that lose their network: in a namespace of their own, or behind proxies."""

from __future__ import annotations

from tests.chaos.cluster import PLAIN, SUPERVISED, HostNetwork
from tests.chaos.faults.base import Fault, problem


class NetworkFault(Fault):
    host: str

    @property
    def network(self) -> HostNetwork:
        return self.cluster.networks[self.host]

    def end(self) -> None:
        self.network.restore()


class Cut(NetworkFault):
    """Every packet is lost, without an error, to and from both servers."""

    def inject(self) -> None:
        self.network.cut()


class CutPlainHost(Cut):
    name = "network: a host behind proxies is cut off"
    host = PLAIN
    expected = problem(f"{PLAIN}|worker|ingest|beat")


class CutNamespace(Cut):
    name = "network: a host in a namespace is cut off"
    host = SUPERVISED
    needs = "network"
    expected = problem(f"{SUPERVISED}|worker|ingest")


class CutBroker(NetworkFault):
    """The host reaches only the database."""

    name = "network: a host cannot reach the broker"
    host = PLAIN
    expected = problem(f"{PLAIN}|worker|ingest|beat")

    def inject(self) -> None:
        self.network.proxies["broker"].cut()


class CutDatabase(NetworkFault):
    """The host reaches only the broker."""

    name = "network: a host cannot reach the database"
    host = PLAIN
    expected = problem(f"{PLAIN}|worker|ingest")

    def inject(self) -> None:
        self.network.proxies["database"].cut()


class Refused(NetworkFault):
    """Connections are closed, and new ones are refused."""

    name = "network: connections of a host are refused"
    host = PLAIN
    expected = problem(f"{PLAIN}|worker|ingest|beat")

    def inject(self) -> None:
        for proxy in self.network.proxies.values():
            proxy.refuse()


class DeadConnections(NetworkFault):
    """The present connections die without an error, as behind a router that restarts. New ones work."""

    holds = False

    def inject(self) -> None:
        self.network.drop_silently()


class DeadBrokerConnections(DeadConnections):
    name = "network: connections to the broker die silently"
    host = PLAIN

    def inject(self) -> None:
        self.network.proxies["broker"].drop_silently()


class DeadDatabaseConnections(DeadConnections):
    """The proxy still acknowledges what it receives, so the kernel of the host notices nothing."""

    name = "network: connections to the database die silently"
    host = PLAIN

    def inject(self) -> None:
        self.network.proxies["database"].drop_silently()


class ChangedAddress(DeadConnections):
    name = "network: a host in a namespace changes its address"
    host = SUPERVISED
    needs = "network"
