"""The report of aws-inventory. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dims_worker.formatting import format_bytes
from dims_worker.workflows.aws_inventory.database import COUNTED, ESTIMATED
from dims_worker.workflows.markdown import attention_section, code_span, escape_markdown, markdown_table

UNKNOWN = "unknown"
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
        lines.append([f"RDS {instance['name']}", f"{kind}, {_gibibytes(instance)} GiB"])
    if parts["database"] is not None:
        size = parts["database"]["bytes"]
        lines.append([f"database {parts['database']['name']}", UNKNOWN if size is None else format_bytes(size)])
    lines.append(["estimate a month", usd(parts["cost"]["sum_usd"])])
    if parts["paid"] is not None:
        lines.append([f"paid in {parts['paid']['days']} days", _paid_figure(parts["paid"])])
    return lines


def _paid_figure(paid: Mapping[str, Any]) -> str:
    """Return what was paid, and why if credits have reduced it: 0.00 USD may hide a large use."""
    if cents(paid["credits"]) == "0.00":
        return money(paid)
    return f"{money(paid)} (usage {cents(paid['usage'])}, credits {cents(paid['credits'])})"


def usd(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.2f} USD"


def money(paid: Mapping[str, Any]) -> str:
    return f"{cents(paid['total'])} {paid['currency']}".strip()


def cents(amount: float) -> str:
    """Format an amount. A rounded -0.00 has no sign."""
    text = f"{amount:,.2f}"
    return "0.00" if text == "-0.00" else text


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
    return markdown_table(headers, [[*cells, _gibibytes(instance)]], (5,))


def _gibibytes(instance: Mapping[str, Any]) -> str:
    return UNKNOWN if instance["storage_gib"] is None else f"{instance['storage_gib']:,}"


def _database(result: Mapping[str, Any]) -> list[str]:
    database = result["database"]
    if database is None:
        is_left_out = any("database" in each["what"] for each in result["left_out"])
        return [] if is_left_out else [_NOT_MEASURED]
    lines = [f"{code_span(database['name'])}: {_database_size(database)}.", ""]
    views = ", ".join(map(code_span, database.get("views", ())))
    without = [f"Views store nothing, so they are not in the table: {views}.", ""] if views else []
    if not database["tables"]:
        return [*lines, "It has no tables.", "", *without]
    headers = ["table", "kind", "bytes", "size", "rows", "how the rows are known"]
    lines += markdown_table(headers, map(_table, database["tables"]), (2, 3, 4))
    lines.append("")
    if any(each.get("partition_of") for each in database["tables"]):
        lines += ["A partitioned table has the sizes and rows of its partitions, which are also listed.", ""]
    return lines + without


def _database_size(database: Mapping[str, Any]) -> str:
    if database["bytes"] is None:
        return f"its size is unknown ({escape_markdown(database['bytes_note'])})"
    return f"{format_bytes(database['bytes'])} ({database['bytes']:,} bytes)"


def _table(table: Mapping[str, Any]) -> list[object]:
    """Return the row of a table. An older version of DIMS stored only its name, size and an estimate of its rows."""
    kind, size = table.get("kind", "table"), table["bytes"]
    if table.get("partition_of"):
        kind = f"{kind}, partition of {code_span(table['partition_of'])}"
    return [
        *(code_span(table["name"]), kind, UNKNOWN if size is None else size),
        escape_markdown(table["bytes_note"]) if size is None else format_bytes(size),
        UNKNOWN if table["rows"] is None else table["rows"],
        escape_markdown(rows_note(table)),
    ]


def rows_note(table: Mapping[str, Any]) -> str:
    """Return how the rows of a table are known, or why they are not."""
    method, note = table.get("rows_method", ESTIMATED), table.get("rows_note")
    if table["rows"] is None or method != ESTIMATED:
        return "counted" if method == COUNTED else str(note)
    since, changes = table.get("rows_since"), table.get("rows_uncertainty")
    words = f"estimate from {since[:10]}" if since else "estimate of unknown age"
    if changes is None:
        words += ", with an unknown number of changes since"
    else:
        low, high = max(table["rows"] - changes, 0), table["rows"] + changes
        words += f", {changes:,} changes since: {low:,} to {high:,}"
    return f"{words} ({note})" if note else words


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
    if cost.get("unknown"):
        names = ", ".join(escape_markdown(name) for name in cost["unknown"])
        lines += ["", f"There is no sum: AWS does not report {names}. The known part is {usd(cost['known_usd'])}."]
    for note in cost.get("notes", ()):
        lines += ["", escape_markdown(note)]
    if result["paid"] is not None:
        lines += ["", *_paid(result["paid"])]
    return lines


def _paid(paid: Mapping[str, Any]) -> list[str]:
    """Return what was paid. An older version of DIMS stored neither usage and credits nor the days."""
    estimated = " AWS may still change the amount." if paid["estimated"] else ""
    lines = [
        f"Charged from {paid['start']} until before {paid['end']}, {paid['days']} days: **{money(paid)}**.{estimated}"
    ]
    has_credits = "credits" in paid
    if has_credits:
        usage, credit = (f"{cents(paid[part])} {paid['currency']}".strip() for part in ("usage", "credits"))
        lines += ["", f"Usage, with taxes and fees: **{usage}**. Credits and refunds: **{credit}**."]
    for name, text in _DAYS:
        if paid.get(name):
            lines += ["", f"{text}: {', '.join(paid[name])}."]
    if paid["services"]:
        headers = ["service", *(("usage", "credits") if has_credits else ()), paid["currency"]]
        rows = [_service(each, has_credits=has_credits) for each in paid["services"]]
        lines += ["", *markdown_table(headers, rows, range(1, len(headers)))]
    return lines


_DAYS = (
    ("estimated_days", "Days whose amounts AWS may still change"),
    ("missing_days", "Days that Cost Explorer left out, so the amounts are too small"),
)


def _service(service: Mapping[str, Any], *, has_credits: bool) -> list[str]:
    parts = ("usage", "credits", "amount") if has_credits else ("amount",)
    return [escape_markdown(service["service"]), *(cents(service[part]) for part in parts)]


def _left_out(result: Mapping[str, Any]) -> list[str]:
    return [f"- {escape_markdown(each['what'])}: {escape_markdown(each['why'])}" for each in result["left_out"]]
