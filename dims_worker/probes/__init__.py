"""Probes measure sources. Importing this package loads no driver. Each probe loads its own when it scans."""

from __future__ import annotations

from typing import Any

from dims_worker.probes.aws.probe import AwsProbe
from dims_worker.probes.base import Probe
from dims_worker.probes.command.probe import CommandProbe
from dims_worker.probes.files.probe import FilesProbe
from dims_worker.probes.git.probe import GitProbe
from dims_worker.probes.s3.probe import S3Probe
from dims_worker.probes.sql.probe import SqlProbe

_PROBES: dict[str, Probe[Any, Any]] = {
    "s3": S3Probe(),
    "files": FilesProbe(),
    "git": GitProbe(),
    "sql": SqlProbe(),
    "aws": AwsProbe(),
    "command": CommandProbe(),
}


def probe_for(kind: str) -> Probe[Any, Any]:
    """Return the probe for a source's `type`. Raises KeyError for a type that the configuration does not allow."""
    return _PROBES[kind]
