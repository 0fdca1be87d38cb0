"""Send one cheap request to each source, with the credentials that workers use."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from dims_worker.checks.check import Check
from dims_worker.config import (
    AwsSource,
    CommandMetric,
    CommandSource,
    Config,
    FilesSource,
    GitSource,
    S3Metric,
    S3Source,
    Source,
    SqlSource,
)
from dims_worker.errors import MeasureError
from dims_worker.probes.aws.errors import translate_aws_errors
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.boto3_client import create_client
from dims_worker.probes.git.command import Git, GitError
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.pages import list_one_key
from dims_worker.probes.s3.probe import s3_client
from dims_worker.probes.sql.snapshot import query_rows

LIMIT = timedelta(seconds=5)
"""How long the request of one source may take."""


def source_checks(config: Config) -> dict[str, Callable[[], Check]]:
    """Return the check of each source, by the source's name. You can call them side by side."""
    return {name: partial(source_check, config, name) for name in config.sources}


def source_check(config: Config, name: str) -> Check:
    """Return whether this host can reach a source. If only a queue of other workers serves it, failing is a warning."""
    source = config.sources[name]
    load_boto3(source)
    began = time.monotonic()
    try:
        done = _REQUESTS[type(source)](config, name, source, Deadline.after(LIMIT))
    except (MeasureError, OSError) as error:
        summary, fix = split_fix(str(error))
        if source.queue is not None:
            fix += f" Its workers listen to the queue {source.queue}: run `dims doctor` on their host too."
            return Check(name, "warning", f"cannot be reached from this host: {summary}", fix.strip())
        return Check(name, "problem", summary, fix)
    return Check(name, "ok", f"{done} ({(time.monotonic() - began) * 1000:.0f} ms)")


def load_boto3(source: Source) -> None:
    """Import boto3 for a source that needs it, which takes a while and must not count as the time of its request."""
    if isinstance(source, S3Source | AwsSource):
        with contextlib.suppress(ImportError):  # `create_client` reports it
            importlib.import_module("boto3")


def split_fix(message: str) -> tuple[str, str]:
    """Split an error of a probe into what happened and the fix."""
    for divider in (". ", ": check ", ": set "):
        summary, found, fix = message.partition(divider)
        if found:
            return summary, f"{divider.strip('.: ')} {fix}".strip().capitalize() if divider != ". " else fix
    return message, "Correct this source in the configuration, or what it needs on this host."


def _s3(config: Config, name: str, source: S3Source, deadline: Deadline) -> str:
    prefixes = [prefix for metric in s3_metrics(config, name) for prefix in metric.listed]
    with translate_s3_errors(source):
        client = s3_client(source, deadline)
    with contextlib.closing(client):
        named = list_one_key(client, source, min(prefixes, default=""))
    alias = f", which calls itself {named}" if named != source.bucket else ""
    return f"lists the bucket {source.bucket}{alias}"


def s3_metrics(config: Config, source: str) -> list[S3Metric]:
    """Return the metrics of a bucket that are enabled."""
    metrics = (config.metrics[name] for name in config.metrics_by_source[source])
    return [metric for metric in metrics if isinstance(metric, S3Metric) and metric.enabled]


def _sql(config: Config, name: str, source: SqlSource, deadline: Deadline) -> str:
    try:
        query_rows(source, "SELECT 1", _context(config), deadline, 1)
    except MeasureError as error:
        if str(error).startswith("cannot connect"):
            reason = str(error).partition(" Is the server running")[0].rstrip(".")
            raise MeasureError(f"{reason}. Check `url`, its server, and the network") from None
        raise
    return "answers SELECT 1"


def _context(config: Config) -> ScanContext:
    return ScanContext(config.project, config.home, config.sources, config.prices)


def _git(config: Config, name: str, source: GitSource, deadline: Deadline) -> str:
    folder = config.path_of(source.path)
    if not folder.is_dir():
        raise MeasureError(f"{folder} is not a folder. Clone the repository there, or correct `path`")
    git = Git(str(folder), deadline)
    git.text("rev-parse", "--git-dir")
    try:
        return f"{folder} is at commit {git.text('rev-parse', '--short', '--verify', '-q', 'HEAD')}"
    except GitError:
        return f"{folder} has no commit yet"


def _files(config: Config, name: str, source: FilesSource, deadline: Deadline) -> str:
    folder = config.path_of(source.path)
    if not folder.is_dir():
        raise MeasureError(f"{folder} is not a folder. Correct `path`, or mount it")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise MeasureError(f"you may not read {folder}. Give its user or group the right to read it")
    with os.scandir(folder) as entries:
        next(entries, None)
    return f"{folder} can be read"


def _command(config: Config, name: str, source: CommandSource, deadline: Deadline) -> str:
    folder = config.path_of(source.cwd)
    if not folder.is_dir():
        raise MeasureError(f"{folder} is not a folder. Correct `cwd`")
    metrics = (config.metrics[each] for each in config.metrics_by_source[name])
    programs = {m.command[0] for m in metrics if isinstance(m, CommandMetric) and m.enabled and not m.shell}
    # A path with a slash is relative to the folder of the program
    missing = sorted(p for p in programs if shutil.which(str(folder / p) if "/" in p else p) is None)
    if missing:
        raise MeasureError(f"{', '.join(missing)} cannot be run. Install it, or make it executable")
    return f"{', '.join(sorted(programs)) or '/bin/sh'} can be run"


def _aws(config: Config, name: str, source: AwsSource, deadline: Deadline) -> str:
    place = source.endpoint_url or "AWS"
    with translate_aws_errors("the credentials", "sts:GetCallerIdentity", place):
        client = create_client(source, deadline, "sts")
        with contextlib.closing(client):
            answer = client.get_caller_identity()
    return f"the credentials are those of {answer['Arn']}"


_REQUESTS: Mapping[type[Source], Callable[[Config, str, Source, Deadline], str]] = {
    S3Source: _s3,  # type: ignore[dict-item]  # each gets the type that is its key
    SqlSource: _sql,  # type: ignore[dict-item]
    GitSource: _git,  # type: ignore[dict-item]
    FilesSource: _files,  # type: ignore[dict-item]
    CommandSource: _command,  # type: ignore[dict-item]
    AwsSource: _aws,  # type: ignore[dict-item]
}
