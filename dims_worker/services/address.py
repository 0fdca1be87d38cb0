"""Where servers listen."""

from __future__ import annotations

import ipaddress


def is_this_machine(address: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name: who knows where it leads
