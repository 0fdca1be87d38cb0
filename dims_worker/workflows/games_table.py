"""The games table: the games that should have data, from the rows of a query. Pure.

The first column of a row is the id, the second the date. The columns `season`, `type` and `played` are optional.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from dims_worker.formatting import pluralize
from dims_worker.probes.ids import IdValues, id_sort_key, id_text
from dims_worker.workflows.game_status import played_reader
from dims_worker.workflows.seasons import (
    UNKNOWN,
    NamedSeason,
    NbaId,
    SeasonCalendar,
    game_type_of,
    read_nba_id,
    read_season,
    season_name,
)

NAMES = 20
"""The number of ids or values that a sentence or a list names."""
_TYPE_COLUMNS = ("type", "game_type", "season_type")
_DAY = re.compile(r"\d{8}|\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d.*", re.ASCII)
_YEARS = range(1900, 2101)


@dataclass(frozen=True, slots=True)
class TableGame:
    """A game of the games table: its `id` for people, and its normalized id as `key`."""

    id: str
    key: str
    day: date | None
    season: str
    type: str
    played: bool


@dataclass(slots=True)
class GamesTable:
    """The games, each id once, sorted by season, day and id, and what is wrong with the rows."""

    games: list[TableGame]
    calendar: SeasonCalendar
    """The seasons by day, with the bounds of the seasons of the table."""
    values: IdValues
    convention: str | None = None
    """Which year the column `season` names: `first year`, `last year`, `both years`, `unclear`, or None without it."""
    contradictions: list[dict[str, Any]] = field(default_factory=list)
    """Games whose season contradicts their date: `id`, `date`, `season` and `reason`."""
    several_rows: list[str] = field(default_factory=list)
    """Ids with several rows that differ."""
    played_unknown: list[str] = field(default_factory=list)
    """Ids of games of which the table does not say whether they were played."""
    undated: dict[str, str] = field(default_factory=dict)
    """The games without a readable date, with the value of their date."""

    def season_of_id(self) -> dict[str, str]:
        return {game.key: game.season for game in self.games}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the query. `played` is None if it is unknown, and `season_text` if the row names no season."""

    key: str
    id: str
    day: date | None
    day_text: str
    season_text: NamedSeason | None
    type_text: str | None
    played: bool | None
    by_status: bool
    """Whether `played` is from a column, and not from the date."""

    @property
    def differs_by(self) -> tuple[Any, ...]:
        return self.day, self.season_text, self.type_text, self.played

    def order(self) -> tuple[Any, ...]:
        """The row that counts comes last: the one that was played, then the latest, in any order of the rows."""
        rank = (-1 if self.played is None else int(self.played)) if self.by_status else 0
        return (rank, self.day or date.min, self.season_text is not None, str(self.season_text), str(self.type_text))


def read_day(value: Any, zone: tzinfo) -> date | None:
    """Return the day of a date, a time, or a text of the form YYYY-MM-DD, YYYYMMDD or ISO 8601.

    A time with a time zone becomes a day in `zone`. A time without one is taken as it is. None for other values: a day
    that does not exist, infinity, a year before 1900 or after 2100, other forms of dates.
    """
    if isinstance(value, str | int | float) or not isinstance(value, date):
        value = _parsed(id_text(value) or "")
    if isinstance(value, datetime):
        if value.tzinfo is not None and value.year in _YEARS:
            value = value.astimezone(zone)
        value = value.date()
    return value if value is not None and value.year in _YEARS else None


def _parsed(text: str) -> date | datetime | None:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(re.sub(r"\s*(UTC|GMT)$", "Z", text))
    except ValueError:
        return None
    return None


def read_games_table(
    rows: Sequence[Mapping[str, Any]], calendar: SeasonCalendar, zone: tzinfo, now: datetime
) -> GamesTable:
    """Return the games of the rows of a query. Raises MeasureError for a value of `played` that is not known.

    The season of a game is that of the column `season`, or else that of an id of the NBA, or else that of the date.
    Without `played`, a game counts as played once its day is over.
    """
    today = now.astimezone(zone).date()
    table = GamesTable([], calendar, IdValues())
    read = _read_rows(rows, zone, today, table)
    nba_ids = _nba_ids(read, calendar)
    years = _first_years(read, nba_ids, table)
    by_id: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in read:
        by_id[row.key].append(row)
    dated: list[tuple[str, date]] = []
    for own in by_id.values():
        row = max(own, key=_Row.order)
        game = _game(row, years.get(row.season_text), nba_ids.get(row.key), calendar)
        reasons = [*_contradictions(row, years.get(row.season_text), nba_ids.get(row.key), calendar, today)]
        table.games.append(game)
        table.contradictions += [_contradiction(game, reason) for reason in reasons]
        if game.day is None:
            table.undated[game.id] = row.day_text
        elif not reasons:
            dated.append((game.season, game.day))
        if row.played is None:
            table.played_unknown.append(game.id)
        if len({each.differs_by for each in own}) > 1:
            table.several_rows.append(game.id)
    table.calendar = calendar.with_bounds(dated)
    table.games.sort(key=lambda game: (game.season, game.day or date.max, game.id))
    table.contradictions.sort(key=lambda each: id_sort_key(each["id"]))
    return table


def _read_rows(rows: Iterable[Mapping[str, Any]], zone: tzinfo, today: date, table: GamesTable) -> list[_Row]:
    rows = [{str(column).lower(): value for column, value in row.items()} for row in rows]
    has_status = bool(rows) and "played" in rows[0]
    played_of = played_reader(row["played"] for row in rows) if has_status else None
    read = []
    for row in rows:
        name, value, *_ = [*row.values(), None, None]
        key = table.values.add(name)
        if key is None:
            continue
        day = read_day(value, zone)
        if played_of is not None:
            played = played_of(row["played"])
        else:
            played = day < today if day is not None else True if value is None else None
        season = id_text(row.get("season"))
        kind = next((id_text(row[name]) for name in _TYPE_COLUMNS if row.get(name) is not None), None)
        named = read_season(season) if season is not None else None
        day_text = "NULL" if value is None else str(value)[:40]
        read.append(_Row(key, id_text(name) or key, day, day_text, named, kind, played, has_status))
    return read


def _nba_ids(rows: Iterable[_Row], calendar: SeasonCalendar) -> dict[str, NbaId]:
    """Return what the ids say that are ids of the NBA.

    A number without the two zeros may belong to someone else. It counts as an id of the NBA if the dates of most such
    games lie in the season that it says.
    """
    certain: dict[str, NbaId] = {}
    likely: dict[str, NbaId] = {}
    agree = 0
    for row in rows:
        if nba := read_nba_id(row.id):
            certain[row.key] = nba
        elif nba := read_nba_id(row.key, with_zeros=False):
            likely[row.key] = nba
            if row.day is not None:
                agree += 1 if calendar.year_of(row.day) == nba.year else -1
    return certain | likely if agree > 0 else certain


def _first_years(
    rows: Iterable[_Row], nba_ids: Mapping[str, NbaId], table: GamesTable
) -> dict[NamedSeason | None, int]:
    """Return the first year of each named season. The dates show whether a single year is the first or the last."""
    votes: Counter[int] = Counter()
    years: dict[NamedSeason | None, int] = {}
    single: set[NamedSeason] = set()
    for row in rows:
        named = row.season_text
        if named is None:
            continue
        if named.year is not None:
            years[named] = named.year
        elif named.one_year is not None:
            single.add(named)
            nba = nba_ids.get(row.key)
            by_date = table.calendar.year_of(row.day) if row.day is not None else nba.year if nba else None
            if by_date is not None:
                votes[named.one_year - by_date] += 1
    if single and votes[0] == votes[1]:
        table.convention = "unclear"
    elif single:
        late = int(votes[1] > votes[0])
        table.convention = "last year" if late else "first year"
        years |= {named: named.one_year - late for named in single if named.one_year is not None}
    elif years:
        table.convention = "both years"
    return years


def _game(row: _Row, year: int | None, nba: NbaId | None, calendar: SeasonCalendar) -> TableGame:
    named = row.season_text
    if named is not None:
        season = season_name(year) if year is not None else named.text
    elif nba is not None:
        season = season_name(nba.year)
    else:
        season = calendar.season_of(row.day)
    kind = game_type_of(row.type_text) if row.type_text else None
    kind = kind or (named.type if named else None) or (nba.type if nba else None) or UNKNOWN
    return TableGame(row.id, row.key, row.day, season, kind, row.played is True)


def _contradictions(
    row: _Row, year: int | None, nba: NbaId | None, calendar: SeasonCalendar, today: date
) -> Iterator[str]:
    """Yield what the row says about its season that its day or its id denies, and a played game in the future."""
    by_date = calendar.year_of(row.day) if row.day is not None else None
    first = year if row.season_text is not None else nba.year if nba else None
    if first is not None and by_date is not None and first != by_date:
        source = "its column `season`" if row.season_text is not None else "its id"
        yield f"{source} says {season_name(first)}, its day {row.day} lies in {season_name(by_date)}"
    elif row.season_text is not None and nba is not None and year is not None and year != nba.year:
        yield f"its column `season` says {season_name(year)}, its id says {season_name(nba.year)}"
    if row.by_status and row.played and row.day is not None and row.day > today + timedelta(days=1):
        yield f"its column `played` says that it was played, and its day {row.day} is in the future"


def _contradiction(game: TableGame, reason: str) -> dict[str, Any]:
    day = game.day.isoformat() if game.day else None
    return {"id": game.id, "date": day, "season": game.season, "reason": reason}


def table_document(table: GamesTable) -> dict[str, Any]:
    """Return the JSON form of what is wrong with the rows of a games table."""
    return {
        "rows_without_id": table.values.rows_without_id,
        "values_without_id": table.values.to_json(),
        "season_column": table.convention,
        "contradictions": table.contradictions,
        "several_rows": sorted(table.several_rows, key=id_sort_key),
        "played_unknown": sorted(table.played_unknown, key=id_sort_key),
        "unreadable_dates": [
            {"id": name, "value": table.undated[name]} for name in sorted(table.undated, key=id_sort_key)
        ],
    }


def table_attention(document: Mapping[str, Any]) -> list[str]:
    """Return what needs attention in the rows of a games table, a sentence each."""
    sentences = []
    if rows := document["rows_without_id"]:
        values = ", ".join(f"{value} ({count:,})" for value, count in document["values_without_id"].items())
        sentences.append(f"the games table has {pluralize(rows, 'row')} without an id: {values}")
    if document["season_column"] == "unclear":
        sentences.append(
            "the column `season` has a single year, and the dates do not show whether it is the first or the last of "
            "a season: write both years in the query, such as 2025-26"
        )
    if contradictions := document["contradictions"]:
        some = "; ".join(f"{each['id']}: {each['reason']}" for each in contradictions[:3])
        sentences.append(f"the games table has {pluralize(len(contradictions), 'contradiction')}, such as {some}")
    if dates := document["unreadable_dates"]:
        some = ", ".join(f"{each['id']} ({each['value']})" for each in dates[:3])
        sentences.append(
            f"the games table has {pluralize(len(dates), 'game')} without a readable date, such as {some}: "
            "write dates as YYYY-MM-DD in the query"
        )
    if unknown := document["played_unknown"]:
        sentences.append(
            f"the games table does not say of {pluralize(len(unknown), 'game')} whether it was played, such as "
            f"{', '.join(unknown[:3])}. DIMS counts it as not played"
        )
    return sentences
