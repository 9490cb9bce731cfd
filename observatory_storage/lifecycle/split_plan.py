"""Which partitions are to be split, and into which ranges.

A partition is split if it is wider than its rows would have it now (a month, a year, a catch-all,
a gap) and has filled up. Hours, days and weeks stay as they are when the width changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, cast

import sqlalchemy as sa

from observatory_storage.layout import PARTITIONED, TWINS, is_partition
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import PartitionState
from observatory_storage.partition_catalog import Partition, partitions_of
from observatory_storage.schema_state import quoted_name
from observatory_storage.time_ranges import (
    MAX,
    MIN,
    Range,
    free_range,
    is_absurd,
    named_gap,
    natural_range,
)

__all__ = ["MOST_RANGES", "Split", "planned_ranges", "planned_splits"]

# The new tables are attached while the table is locked, and each takes some milliseconds.
MOST_RANGES: Final = 40
_INSTANT: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_STATES: Final = cast(sa.Table, PartitionState.__table__)


@dataclass(frozen=True, slots=True)
class Split:
    """A partition, and the ranges that it is to be split into. They cover all of its range."""

    table: str
    partition: str
    ranges: tuple[Range, ...]


def planned_splits(run: Run) -> list[Split]:
    """The partitions that are to be split now. It counts rows, but locks nothing."""
    schema = run.source.schema
    splits: dict[str, Split] = {}
    with run.source.engine.begin() as connection:
        closed = set(connection.scalars(sa.select(_STATES.c.partition_name)))
        tables = {table: partitions_of(connection, schema, table) for table in PARTITIONED}
    for table, partitions in tables.items():
        twins = {
            other: [one for one in tables[other] if not one.is_leaving]
            for other in TWINS.get(table, ())
        }
        for partition in partitions:
            if partition.name in splits or not _is_too_wide(run, table, partition, closed):
                continue
            tiles = [_tiles(partition.range, [one.range for one in of]) for of in twins.values()]
            if any(tiles):  # a twin has been split
                splits[partition.name] = Split(table, partition.name, max(tiles, key=len))
                continue
            names = {table: partition.name}
            for other, of in twins.items():
                names.update((other, one.name) for one in of if one.range == partition.range)
            ranges = _ranges(run, names, partition.range)
            if len(ranges) > 1:
                splits |= {name: Split(of, name, ranges) for of, name in names.items()}
    return list(splits.values())


def _is_too_wide(run: Run, table: str, partition: Partition, closed: set[str]) -> bool:
    name, held, is_leaving = partition
    if is_leaving or not is_partition(name) or (name in closed and not is_absurd(held)):
        return False
    if held.upper - held.lower <= _DAY or "w" in named_gap(held.lower, held.upper).suffix:
        return False
    nearest = min(max(run.now, held.lower), held.upper - _INSTANT)
    natural = _natural(run, table, nearest)
    return held.contains(natural) and natural[:2] != held[:2]


def _natural(run: Run, table: str, moment: datetime) -> Range:
    config = run.source.config.partitions
    return natural_range(moment, run.now, config.width_of(table), config.ahead)


def _tiles(held: Range, ranges: Sequence[Range]) -> tuple[Range, ...]:
    """The ranges within this one, if they are several and cover it; else none."""
    within = [named_gap(one.lower, one.upper) for one in sorted(ranges) if held.contains(one)]
    edge = held.lower
    for one in within:
        if one.lower != edge:
            return ()
        edge = one.upper
    return tuple(within) if edge == held.upper and len(within) > 1 else ()


def _ranges(run: Run, names: Mapping[str, str], held: Range) -> tuple[Range, ...]:
    """The ranges that the partitions, which all hold `held`, are split into; none if small."""
    config = run.source.config.partitions
    width = config.width_of(next(iter(names)))
    buckets: Counter[datetime] = Counter()
    with run.source.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        tables = {
            t: f"{quoted_name(run.source.schema)}.{quoted_name(name)}" for t, name in names.items()
        }
        if all(_is_small(connection, name, config.split_rows) for name in tables.values()):
            return ()
        unit = "year" if is_absurd(held) else "hour" if width == "hour" else "day"
        for table, name in tables.items():
            column = quoted_name(PARTITIONED[table])
            rows = connection.execute(
                sa.text(
                    "SELECT date_trunc(:unit, least(greatest(moment, :min), :max)"  # noqa: S608 - quoted
                    " AT TIME ZONE 'UTC'), count(*)"
                    f" FROM (SELECT {column} AS moment FROM {name}) AS rows GROUP BY 1"
                ),
                {"unit": unit, "min": MIN, "max": MAX},
            )
            buckets.update({moment.replace(tzinfo=UTC): count for moment, count in rows})
    return planned_ranges(run, next(iter(names)), held, buckets)


def _is_small(connection: sa.Connection, name: str, most: int) -> bool:
    """Whether the partition has at most so many rows. No more than these are looked at."""
    counted = sa.text(f"SELECT count(*) FROM (SELECT FROM {name} LIMIT :most + 1) AS a")  # noqa: S608 - quoted
    return bool(connection.scalar(counted, {"most": most}) <= most)


def planned_ranges(
    run: Run, table: str, held: Range, buckets: Mapping[datetime, int]
) -> tuple[Range, ...]:
    """Ranges that cover `held`: the natural ones of the rows, and coarse ones between them.

    Args:
        run: the run, from whose time distances count.
        table: the partitioned table, whose width is used.
        held: the range of the partition that is split.
        buckets: how many rows there are of each hour, day or year, by its beginning.
    """
    filled: list[tuple[Range, int]] = []
    for moment, rows in sorted(buckets.items()):
        first = max(moment, held.lower)
        if filled and filled[-1][0].holds(first):
            filled[-1] = (filled[-1][0], filled[-1][1] + rows)
        else:
            filled.append((_free(run, table, first, held, [one for one, _ in filled]), rows))
    if 2 * len(filled) - _touching(filled) > MOST_RANGES:
        filled = list(_merged(filled, MOST_RANGES // 2))
    ranges: list[Range] = []
    edge = held.lower
    for number, one in enumerate([*(one for one, _ in filled), Range(held.upper, held.upper)]):
        if edge < one.lower:
            # Each that follows may have a gap before it.
            left = MOST_RANGES - len(ranges) - 2 * (len(filled) - number)
            ranges += _between(run, table, Range(edge, one.lower), left)
        if one.lower < one.upper:
            ranges.append(one)
        edge = one.upper
    return tuple(ranges)


def _free(run: Run, table: str, moment: datetime, held: Range, taken: Sequence[Range]) -> Range:
    """The natural range of the moment within `held`, beside those that are taken."""
    if is_absurd(held):
        year = _natural(run, table, moment)
        edge = taken[-1].upper if taken else held.lower
        return named_gap(max(year.lower, edge), min(year.upper, held.upper))
    config = run.source.config.partitions
    around = [Range(MIN, held.lower), *taken, Range(held.upper, MAX)]
    return free_range(moment, run.now, config.width_of(table), around, config.ahead)


def _touching(filled: Sequence[tuple[Range, int]]) -> int:
    """How many ranges begin where the one before ends, so that there is no gap between them."""
    return sum(one.upper == other.lower for (one, _), (other, _) in pairwise(filled))


def _merged(filled: Sequence[tuple[Range, int]], most: int) -> Iterator[tuple[Range, int]]:
    """Neighbours together, so that there are about as few as this, with as many rows each."""
    share = sum(rows for _, rows in filled) / most
    lower, total = filled[0][0].lower, 0
    for number, (one, rows) in enumerate(filled):
        total += rows
        if total >= share or number == len(filled) - 1:
            yield named_gap(lower, one.upper), total
            if number < len(filled) - 1:
                lower, total = filled[number + 1][0].lower, 0


def _between(run: Run, table: str, gap: Range, left: int) -> list[Range]:
    """Ranges for a gap without rows: one, but of the future those that rows will have."""
    edge = max(gap.lower, min(run.now, gap.upper))
    ranges: list[Range] = []
    if not is_absurd(gap):
        while edge < gap.upper and len(ranges) < left - 1:
            one = _free(run, table, edge, gap, ranges)
            ranges.append(one)
            edge = one.upper
    lower = ranges[0].lower if ranges else gap.upper
    before = [named_gap(gap.lower, lower)] if gap.lower < lower else []
    after = [named_gap(edge, gap.upper)] if ranges and edge < gap.upper else []
    return [*before, *ranges, *after]
