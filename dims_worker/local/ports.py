"""TCP ports on 127.0.0.1."""

from __future__ import annotations

import ipaddress
import random
import socket

from dims_worker.errors import ServiceError

HOST = "127.0.0.1"

RANGE = range(15_000, 32_000)
"""Ports below those that kernels use for outgoing connections (Linux 32768+, macOS 49152+). No other program takes a
server's port by chance while the server is down, so it gets the same port again."""


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # The servers set this too: connections of the last server that are still closing do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_port(wanted: int | None) -> int:
    """Return `wanted` if it is free, else any free port.

    Raises:
        ServiceError: no port is free.
    """
    if wanted is not None and port_is_free(wanted):
        return wanted
    for port in random.SystemRandom().sample(RANGE, 100):
        if port_is_free(port):
            return port
    raise ServiceError(f"no free port on {HOST} between {RANGE.start} and {RANGE.stop}. Stop a program that uses one.")


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address. A name other than `localhost` may lead anywhere."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
