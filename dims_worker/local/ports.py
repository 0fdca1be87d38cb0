"""TCP ports on 127.0.0.1."""

from __future__ import annotations

import ipaddress
import random
import socket

from dims_worker.errors import ServiceError

HOST = "127.0.0.1"

RANGE = range(15_000, 32_000)
"""Below the ports that kernels lend to outgoing connections (Linux 32768+, macOS 49152+), so that nobody
takes a server's port by chance while it is down, and it can have the same one again."""


def port_is_free(port: int) -> bool:
    """Could a server listen on this port now?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of the last server that still fade away are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_port(wanted: int | None) -> int:
    """`wanted`, if it is free, else any port that is.

    Raises:
        ServiceError: none was found.
    """
    if wanted is not None and port_is_free(wanted):
        return wanted
    for port in random.SystemRandom().sample(RANGE, 100):
        if port_is_free(port):
            return port
    raise ServiceError(f"No free port was found on {HOST} between {RANGE.start} and {RANGE.stop}.")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name: who knows where it leads
