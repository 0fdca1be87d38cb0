"""The report of aws-inventory. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.formatting import format_bytes
from dims_worker.workflows.markdown import attention_section, code_span, escape_markdown, markdown_table

_NOT_MEASURED = "This part was not measured: its source was not reached."
_COUNTED = (
    "Objects of all storage classes and empty objects that show folders are counted. Old versions, and uploads that "
    "are not finished, are not counted, but you may pay for them."
)


def summary(parts: Mapping[str, Any]) -> list[list[str]]:
    """Return the main figures as pairs of label and value."""
    lines: list[list[str]] = []
    if parts["lake"] is not None:
        lines += [["objects", f"{parts['lake']['objects']:,}"], ["size", format_bytes(parts["lake"]["bytes"])]]
    if (instance := parts["instance"]) is not None:
        kind = f"{instance['class']}, {instance['engine']} {instance['version']}"
        lines.append([f"RDS {instance['name']}", f"{kind}, {instance['storage_gib']:,} GiB"])
    if parts["database"] is not None:
        lines.append([f"database {parts['database']['name']}", format_bytes(parts["database"]["bytes"])])
    lines.append(["estimate a month", usd(parts["cost"]["sum_usd"])])
    if parts["paid"] is not None:
        lines.append([f"paid in {parts['paid']['days']} days", money(parts["paid"])])
    return lines


def usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f} USD"


def money(paid: Mapping[str, Any]) -> str:
    return f"{paid['total']:,.2f} {paid['currency']}"


def markdown(result: Mapping[str, Any]) -> str:
    """Return the parts after the head: bucket by prefix, uploads, instance, database, cost, omitted parts."""
    parts = (
        *((f"Bucket {escape_markdown(result['bucket'])}", _lake), ("Newest uploads", _uploads), ("RDS", _instance)),
        *(("Database", _database), ("Cost", _cost), ("Left out", _left_out)),
    )
    lines = attention_section(result["attention"])
    for title, render in parts:
        if part := render(result):
            lines += [f"## {title}", "", *part, ""]
    return "\n".join(lines)


def _lake(result: Mapping[str, Any]) -> list[str]:
    lake = result["lake"]
    if lake is None:
        return [_NOT_MEASURED]
    rows = [
        [
            code_span(part["prefix"]) if part["prefix"] else "(no folder)",
            *(part["objects"], part["bytes"], format_bytes(part["bytes"])),
            ", ".join(f"{escape_markdown(each['class'])}: {each['objects']:,}" for each in part["classes"]),
        ]
        for part in lake["prefixes"]
    ]
    rows.append(["**all**", lake["objects"], lake["bytes"], format_bytes(lake["bytes"]), ""])
    table = markdown_table(["prefix", "objects", "bytes", "size", "storage classes"], rows, (1, 2, 3))
    return [*table, "", _COUNTED]


def _uploads(result: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for part in (result["lake"] or {"prefixes": []})["prefixes"]:
        if part["newest"]:
            rows = [[code_span(each["key"]), each["uploaded"], each["bytes"]] for each in part["newest"]]
            title = code_span(part["prefix"]) if part["prefix"] else "(no folder)"
            lines += [f"### {title}", "", *markdown_table(["key", "uploaded", "bytes"], rows, (2,)), ""]
    return lines


def _instance(result: Mapping[str, Any]) -> list[str]:
    instance = result["instance"]
    if instance is None:
        return [] if any(each["what"] == "RDS" for each in result["left_out"]) else [_NOT_MEASURED]
    cells = [escape_markdown(str(instance[key])) for key in ("name", "class", "engine", "version", "status")]
    headers = ["instance", "class", "engine", "version", "status", "storage, GiB"]
    return markdown_table(headers, [[*cells, instance["storage_gib"]]], (5,))


def _database(result: Mapping[str, Any]) -> list[str]:
    database = result["database"]
    if database is None:
        is_left_out = any("database" in each["what"] for each in result["left_out"])
        return [] if is_left_out else [_NOT_MEASURED]
    rows = [
        [code_span(each["name"]), each["bytes"], format_bytes(each["bytes"]), each["rows"]]
        for each in database["tables"]
    ]
    lines = [f"{code_span(database['name'])}: {format_bytes(database['bytes'])} ({database['bytes']:,} bytes).", ""]
    return lines + (
        markdown_table(["table", "bytes", "size", "rows (estimate)"], rows, (1, 2, 3))
        if rows
        else ["It has no tables."]
    )


def _cost(result: Mapping[str, Any]) -> list[str]:
    cost = result["cost"]
    rows = [
        [
            *(escape_markdown(line["what"]), f"{line['amount']:,.2f} {line['unit']}"),
            "no price" if line["price"] is None else f"{line['price']:g}",
            usd(line["usd"]),
        ]
        for line in cost["lines"]
    ]
    rows.append(["**sum a month**", "", "", f"**{usd(cost['sum_usd'])}**"])
    lines = markdown_table(["", "amount", "price, USD", "a month"], rows, (1, 2, 3))
    if cost["unpriced"]:
        names = ", ".join(code_span(f"prices.{name}") for name in cost["unpriced"])
        lines += ["", f"There is no sum: the configuration lacks {names}. The known part is {usd(cost['known_usd'])}."]
    if cost["missing"]:
        names = ", ".join(escape_markdown(name) for name in cost["missing"])
        lines += ["", f"There is no sum: {names} was not reached. The known part is {usd(cost['known_usd'])}."]
    if result["paid"] is not None:
        lines += ["", *_paid(result["paid"])]
    return lines


def _paid(paid: Mapping[str, Any]) -> list[str]:
    estimated = " AWS may still change the amount." if paid["estimated"] else ""
    rows = [[escape_markdown(each["service"]), f"{each['amount']:,.2f}"] for each in paid["services"]]
    text = (
        f"Charged from {paid['start']} until before {paid['end']}, {paid['days']} days: **{money(paid)}**.{estimated}"
    )
    return [text, *(["", *markdown_table(["service", paid["currency"]], rows, (1,))] if rows else [])]


def _left_out(result: Mapping[str, Any]) -> list[str]:
    return [f"- {escape_markdown(each['what'])}: {escape_markdown(each['why'])}" for each in result["left_out"]]
