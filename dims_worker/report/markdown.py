"""The inventory as Markdown to be kept in git: in the order of the configuration, and nothing in it that changes
while nothing is measured. So there is no time of making and no age: an age is told as the moment it counts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dims_worker.evidence import Gap
from dims_worker.report import words
from dims_worker.report.inventory import Category, Found, Inventory
from dims_worker.report.standing import Standing
from dims_worker.wording import NOTHING, count, drift_text, value_text
from dims_worker.workflows import catalogue
from dims_worker.workflows.tables import code, table, text

MASTER = "MASTER_DATA_INVENTORY.md"
COLLECTION = "DATA_COLLECTION_INVENTORY.md"
NAMED = 20
"""So many names of what is missing are told."""


def documents(inventory: Inventory) -> dict[str, str]:
    """The documents by the names of their files; that of the feeds only where there are any."""
    found = {MASTER: master(inventory)}
    return found | {COLLECTION: collection(inventory)} if inventory.feeds else found


def master(inventory: Inventory) -> str:
    """All categories, after what needs a person."""
    lines = [
        "# Data inventory",
        "",
        f"{words.metrics(len(inventory.standings))} in {_categories(len(inventory.categories))}. {_read(inventory)}",
        "",
        *_waiting(inventory),
        *_failed(inventory.standings),
        *_contents(inventory.categories),
    ]
    for category in inventory.categories:
        lines += _category(category, inventory)
    if inventory.off:
        lines += [
            "## Off",
            "",
            "Measured only when they are named.",
            "",
            *(f"- {code(name)}" for name in inventory.off),
        ]
        lines.append("")
    lines += _workflows(inventory.workflows)
    return _document(lines)


def collection(inventory: Inventory) -> str:
    """The feeds side by side, then each with what it lacks by name."""
    feeds = inventory.feeds
    standings = [one for category in feeds for one in category.standings]
    lines = [
        "# Data collection inventory",
        "",
        f"{count(len(feeds), 'feed')}, {words.metrics(len(standings))}. {_read(inventory)}",
        "",
        *_beside(feeds),
        *_failed(standings),
    ]
    for category in feeds:
        lines += _category(category, inventory)
        lines += [line for one in category.standings for line in _missing(one)]
    return _document(lines)


def _document(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def _categories(number: int) -> str:
    return "1 category" if number == 1 else f"{number} categories"


def _read(inventory: Inventory) -> str:
    newest = f"The newest reading is of {words.when(inventory.newest)}." if inventory.newest else "Nothing is measured."
    return f"{newest} Change is since {words.when(inventory.since)}. Ages and stale metrics: `dims metrics`."


def _waiting(inventory: Inventory) -> Iterator[str]:
    if not inventory.requests:
        return
    by_name = {one.metric: one for one in inventory.standings}
    yield from ("## Waits for a person", "")
    rows = []
    for request in inventory.requests:
        one = by_name.get(request.metric)
        declared = one.declared if one else None
        rows.append(
            [
                request.id,
                code(request.metric),
                text(value_text(request.baseline, request.unit, declared, request.as_of)),
                text(value_text(request.value, request.unit, declared, request.as_of)),
                drift_text(request.value, request.baseline, request.drift_pct),
                text(request.reason),
                words.day(request.opened_at),
                code(words.decide(request)),
            ]
        )
    heads = ("request", "metric", "baseline", "proposed", "drift", "why", "since", "to accept")
    yield from table(heads, rows, (0, 2, 3, 4))
    yield ""


def _failed(standings: Sequence[Standing]) -> Iterator[str]:
    failed = [one for one in standings if one.failed]
    if failed:
        yield from ("## Could not be measured", "", "The last good value of these still stands; it is not zero.", "")
        for one in failed:
            since = f" (good until {words.when(one.state.as_of)})" if one.state.as_of else " (never measured)"
            yield f"- {code(one.metric)}: {text(one.state.error or '')}{since}"
        yield ""


def _contents(categories: Sequence[Category]) -> Iterator[str]:
    yield from ("## Categories", "")
    rows = []
    for category in categories:
        asks = sum(bool(words.states(one, lasting=True)) for one in category.standings)
        rows.append([f"[{category.name}](#{category.name})", len(category.standings), asks or ""])
    yield from table(("category", "metrics", "to look at"), rows, (1, 2))
    yield ""


def _category(category: Category, inventory: Inventory) -> Iterator[str]:
    yield from (f"## {category.name}", "")
    heads = ("metric", "value", "change", "baseline", "drift", "state", "what it is")
    latest = words.day(inventory.newest) if inventory.newest else ""
    yield from table(heads, [_row(one, latest) for one in category.standings], (1, 2, 3, 4))
    yield ""


def _row(one: Standing, latest: str) -> list[object]:
    """A row that stays as it is while the metric does: when it was measured is told where others are newer."""
    state = one.state
    said = words.states(one, lasting=True) or ["ok"]
    if state.as_of and words.day(state.as_of) != latest:
        said.append(f"of {words.day(state.as_of)}")
    drift = NOTHING if one.declared.is_age else drift_text(state.value, state.baseline, state.drift_pct)
    return [
        f"**{code(one.name)}**" if one.critical else code(one.name),
        text(words.instant(one, state.value)),
        words.change(one),
        text(words.instant(one, state.baseline)) if state.baseline_as_of and not one.declared.is_age else NOTHING,
        drift,
        text(", ".join(said)),
        text(one.declared.description),
    ]


def _beside(feeds: Sequence[Category]) -> Iterator[str]:
    """What several feeds measure alike, a column a feed."""
    names = dict.fromkeys(one.name for category in feeds for one in category.standings)
    columns = [{one.name: one for one in category.standings} for category in feeds]
    shared = [name for name in names if sum(name in column for column in columns) > 1]
    if shared:
        yield from ("## Side by side", "")
        rows = [[code(name), *(_told(column.get(name)) for column in columns)] for name in shared]
        heads = ("", *(category.name for category in feeds))
        yield from table(heads, rows, range(1, len(heads)))
        yield ""


def _told(one: Standing | None) -> str:
    if one is None:
        return ""
    worst = words.states(one, lasting=True)[:1]
    return text(words.instant(one, one.state.value)) + "".join(f" (**{text(word)}**)" for word in worst)


def _missing(one: Standing) -> Iterator[str]:
    for gap in one.gaps:
        yield f"- {code(one.metric)}, {gap_words(gap)}: {', '.join(code(str(name)) for name in gap.named[:NAMED])}"
        yield ""


def gap_words(gap: Gap) -> str:
    """`missing ids, 20 of 1,204`."""
    shown = min(len(gap.named), NAMED)
    number = f"{shown:,}" if shown == gap.total else f"{shown:,} of {gap.total:,}"
    return f"{gap.name.replace('_', ' ')}, {number}"


def _workflows(found: Sequence[Found]) -> Iterator[str]:
    if not found:
        return
    yield from ("## Workflows", "", "What the last run of each found.", "")
    rows = [
        [
            one.name,
            catalogue.status(one.result),
            words.when(one.run.started_at),
            text(", ".join(f"{what}: {figure}" for what, figure in catalogue.summary(one.result))),
        ]
        for one in found
    ]
    yield from table(("workflow", "state", "run", "figures"), rows)
    yield ""
