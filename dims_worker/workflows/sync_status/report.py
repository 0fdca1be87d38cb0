"""The report of sync-status. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dims_worker.formatting import format_percent
from dims_worker.probes.s3.sync import STATUSES
from dims_worker.workflows.markdown import code_span, escape_prose, markdown_table

_KINDS = (("only_local", "Only local"), ("only_s3", "Only in S3"), ("different", "Different"))


def drift(drift_pct: float) -> str:
    """Format in % without rounding across the limit of a status: one file of 28,114 is not 0.0 %."""
    return format_percent(drift_pct, *STATUSES)


def summary(parts: Mapping[str, Any]) -> list[list[str]]:
    """Return the main figures as pairs of label and value."""
    return [
        ["status", str(parts["status"])],
        ["drift", drift(parts["drift_pct"])],
        *([title.lower(), f"{len(parts[kind]):,}"] for kind, title in _KINDS),
        ["same", f"{parts['same']:,}"],
        ["without a command", f"{len(parts['without_command']):,}"],
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """Return the parts after the head: status, pairs, each difference by name, the commands."""
    if result["status"] is None:
        return f"{code_span(result['metric'])} could not be measured: local files and lake were not compared."
    lines = [
        f"**{result['status']}**: {drift(result['drift_pct'])} of {result['union']:,} files differ.",
        "",
        *_pairs(result),
        "",
    ]
    for kind, title in _KINDS:
        lines += [f"## {title}: {len(result[kind]):,}", "", *_names(result[kind]), ""]
    return "\n".join([*lines, *_commands(result)])


def _pairs(result: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            *(code_span(pair["folder"]), code_span(f"s3://{result['bucket']}/{pair['prefix']}")),
            *(pair["only_local"], pair["only_s3"], pair["different"], pair["same"]),
            drift(pair["sync_drift_pct"]),
        ]
        for pair in result["pairs"]
    ]
    headers = ["folder", "prefix", "only local", "only in S3", "different", "same", "drift"]
    return markdown_table(headers, rows, range(2, 7))


def _names(files: Sequence[Mapping[str, Any]]) -> list[str]:
    if not files:
        return ["None."]
    rows = [[code_span(each["key"]), each["local_bytes"], each["s3_bytes"]] for each in files]
    return markdown_table(["key", "local bytes", "bytes in S3"], rows, (1, 2))


def _commands(result: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if result["commands"]:
        lines += ["## Commands that fix the differences", "", *_block(result["commands"]), ""]
    if result["overwrite"]:
        lines += ["## Files that differ", "", "Decide which side is right. If it is the local one:", ""]
        lines += [*_block([each["up"] for each in result["overwrite"]]), "", "If it is the lake:", ""]
        lines += [*_block([each["down"] for each in result["overwrite"]]), ""]
    # A result that an older version stored has no such list
    if without := result.get("without_command"):
        lines += [f"## Without a command: {len(without):,}", ""]
        lines += ["No copy command can fix these differences safely. Fix each cause first.", ""]
        lines += markdown_table(["key", "difference", "why"], map(_without, without))
    return lines


def _without(difference: Mapping[str, str]) -> list[str]:
    title = dict(_KINDS)[difference["kind"]]
    return [code_span(difference["key"]), title[0].lower() + title[1:], escape_prose(difference["reason"])]


def _block(commands: Sequence[str]) -> list[str]:
    """Return a block of code with a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for command in commands for run in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", *commands, fence]
