"""The network of a host of the test: a network namespace of its own where the system allows it, or else proxies."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class Namespace:
    """A network namespace with one link to this computer. A cut of the link loses every packet, without an error.

    Needs root and `ip`. `create` removes it again, also after an error.
    """

    def __init__(self, number: int) -> None:
        self.name = f"dims-chaos-{number}"
        self._ours, self._theirs = f"dimsa{number}", f"dimsb{number}"
        subnet = f"10.77.{number % 250 + 1}"
        self.network, self.address = f"{subnet}.0/29", f"{subnet}.1"
        self._addresses = [f"{subnet}.2/29", f"{subnet}.3/29"]

    @classmethod
    @contextmanager
    def create(cls) -> Iterator[Namespace]:
        """Yield a new namespace. Raises OSError with the reason if the system does not allow it."""
        if os.geteuid() != 0:
            raise PermissionError("a network namespace needs root")
        for program in ("ip", "unshare"):
            if shutil.which(program) is None:
                raise FileNotFoundError(f"`{program}` is not installed")
        namespace = cls(os.getpid() % 100_000)
        try:
            namespace._make()
            yield namespace
        finally:
            namespace._remove()

    def command(self, argv: list[str]) -> list[str]:
        """Return a command that runs `argv` in the namespace and with its name as the host's, as the same process."""
        rename = f'echo {self.name} > /proc/sys/kernel/hostname && exec "$@"'
        return [*self._inside(), "unshare", "--uts", "sh", "-c", rename, "sh", *argv]

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        _ip("link", "set", self._ours, "down")

    def restore(self) -> None:
        _ip("link", "set", self._ours, "up")

    def change_address(self) -> None:
        """Give the host another address: its connections die silently, and new ones work."""
        old, new = self._addresses
        self._addresses.reverse()
        _ip("-n", self.name, "addr", "add", new, "dev", self._theirs)
        _ip("-n", self.name, "addr", "del", old, "dev", self._theirs)

    def _make(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._ours, "type", "veth", "peer", "name", self._theirs, "netns", self.name)
        _ip("addr", "add", f"{self.address}/29", "dev", self._ours)
        _ip("link", "set", self._ours, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        # Without this, the second address goes when the first one does
        with contextlib.suppress(OSError):
            _run([*self._inside(), "sysctl", "-q", "-w", f"net.ipv4.conf.{self._theirs}.promote_secondaries=1"])
        _ip("-n", self.name, "addr", "add", self._addresses[0], "dev", self._theirs)
        _ip("-n", self.name, "link", "set", self._theirs, "up")

    def _remove(self) -> None:
        for arguments in (("link", "del", self._ours), ("netns", "del", self.name)):
            with contextlib.suppress(OSError):  # `_make` may have failed before it created this
                _ip(*arguments)


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
