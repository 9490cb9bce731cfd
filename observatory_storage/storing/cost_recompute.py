"""Computes the costs of stored spans again, after prices have changed.

Spans are read in the order of their start. Those whose cost differs are read again in a transaction
that has locked the rows of their traces, as writers do, and are updated there. So it can run beside
writers and beside itself, and can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from observatory_storage.changed_spans import mark_changes
from observatory_storage.commits import Commit, changes_of_spans
from observatory_storage.errors import ValidationError, translated
from observatory_storage.pricing import PriceTable, service_tier_of, stored_tier
from observatory_storage.rows.value_checks import Refused
from observatory_storage.rows.value_checks import time as moment_of
from observatory_storage.serialization import Result
from observatory_storage.storing.fact_changes import SpanKey
from observatory_storage.storing.span_costs import PricedCall, priced
from observatory_storage.storing.span_walk import SpanWalk
from observatory_storage.storing.stored_usage import decide_traces, mark_unsettled, usage_of
from observatory_storage.storing.trace_recompute import recompute_traces, reports_usage
from observatory_storage.storing.trace_upsert import locked_traces
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.storing.usage_in_batch import REPORT, USAGE_FIELDS, reported_json
from observatory_storage.storing.usage_once import Usage
from observatory_storage.tables import SPANS

__all__ = ["RecomputedCosts", "recompute_costs"]

_SPANS: Final = SPANS.table
_SPANS_AT_A_TIME: Final = 1000
_KEY: Final = SpanKey._fields
_CHANGED: Final = (*USAGE_FIELDS, *REPORT)


@dataclass(frozen=True, slots=True)
class RecomputedCosts(Result):
    """The result of `recompute_costs`.

    Attributes:
        spans: the number of spans that were read.
        changed_spans: the number of spans whose cost has changed.
        next_start: the start of the next call, which continues there; None at the end.
    """

    spans: int = 0
    changed_spans: int = 0
    next_start: datetime | None = None


def recompute_costs(
    pool: Source,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    max_spans: int | None = None,
    progress: Callable[[RecomputedCosts], object] | None = None,
) -> RecomputedCosts:
    """Compute the costs of stored spans again, with the prices as they are stored now.

    It covers the spans that start within [start, end) and have no cost, or one that was computed;
    a cost that was told stays. A span without a price any more loses its computed cost. The totals
    of traces follow, and each cost counts once. If no prices are stored at all, nothing changes.

    It works in transactions of at most 1,000 spans, and can run beside writers and beside itself.
    What is right already is not written. Afterwards `StoragePool.settle_usage` sees to calls that
    several traces report.

    Example::

        load_prices(pool, "prices.yaml")
        done = recompute_costs(pool, datetime(2026, 7, 1, tzinfo=UTC))
        print(done.spans, done.changed_spans)

    Args:
        pool: the pool.
        start: the first start; None begins with the oldest span.
        end: the first start that is left out; None is no bound.
        max_spans: stop after so many spans, and those that start at the same time as the last one.
            `RecomputedCosts.next_start` is the `start` of the next call.
        progress: is called after each transaction with what was done so far. If the call is
            interrupted, the last `next_start` continues it.

    Raises:
        StorageError: the database could not be used. What was recomputed before stays so.
        ValidationError: a time has no time zone, ``end`` is before ``start``, or ``max_spans`` is
            not a positive integer.
    """
    start, end = _moment("start", start), _moment("end", end)
    if start is not None and end is not None and end < start:
        raise ValidationError("end", end, f"must not be before start={start}")
    walk = SpanWalk(_SELECT, start, end, page_size=_SPANS_AT_A_TIME, max_spans=max_spans)
    prices = pool.prices.current()
    if prices is None:
        return RecomputedCosts()
    changed = 0
    while True:
        keys, different = retrying(pool.config, partial(_look, pool, walk.page(), prices))
        if not keys:
            return RecomputedCosts(walk.spans, changed, walk.next_start)
        if different:
            changed += retrying(pool.config, partial(_recompute, pool, different, prices))
        reached = walk.passed(keys)
        if progress is not None:
            progress(RecomputedCosts(walk.spans, changed, reached))


def _moment(field: str, value: datetime | None) -> datetime | None:
    try:
        return None if value is None else moment_of(value)
    except Refused as refused:
        raise refused.of(field, value) from None


def _look(
    source: Source, page: sa.Select[Any], prices: PriceTable
) -> tuple[list[SpanKey], list[SpanKey]]:
    """The next spans, and those of them whose cost differs."""
    with translated(), source.engine.connect() as connection:
        rows = connection.execute(page).mappings().all()
    return [_key_of(row) for row in rows], [key for key, _, _ in _changes(rows, prices)]


def _recompute(source: Source, keys: Sequence[SpanKey], prices: PriceTable) -> int:
    """Recompute these spans, and settle their traces; return how many spans changed."""
    with (
        translated(),
        source.commits.telling() as telling,
        source.engine.begin() as connection,
    ):
        locked_traces(connection, {key.trace_id for key in keys})
        changes = list(_changes(_read(connection, keys), prices))
        if not changes:
            return 0
        changes.sort(key=lambda change: _place(change[0]))
        connection.execute(_UPDATE, [_parameters(key, columns) for key, columns, _ in changes])
        mark_changes(connection, [key.start_time for key, _, _ in changes])
        changed = {key.trace_id for key, _, _ in changes}
        recompute_traces(connection, changed)
        decide_traces(connection, locked_traces(connection, changed))
        mark_unsettled(connection, {key.trace_id for key, _, names_call in changes if names_call})
        telling.announce(connection, Commit(changes=changes_of_spans(connection)))
    return len(changes)


def _changes(
    rows: Sequence[sa.RowMapping], prices: PriceTable
) -> Iterator[tuple[SpanKey, dict[str, Any], bool]]:
    """The spans that change: their keys, new columns, and whether they name a response."""
    for row in rows:
        if not row["reports_usage"]:
            continue
        reported = row["reported_usage"]
        if reported is None:
            before = Usage(*(row[column] for column in USAGE_FIELDS))
        else:
            before = usage_of(reported, row["reported_cost_source"])
        call = PricedCall(
            *(row["provider"], row["model"], row["response_model"]),
            *(service_tier_of(row["service_tier"]), row["start_time"]),
        )
        usage = priced(before, call, prices)
        if usage == before:
            continue
        columns = {column: row[column] for column in _CHANGED}
        if reported is None:
            columns |= usage._asdict()
        else:
            columns |= dict(zip(REPORT, (reported_json(usage), usage.cost_source), strict=True))
        yield _key_of(row), columns, row["response_id"] is not None


def _key_of(row: sa.RowMapping) -> SpanKey:
    return SpanKey(*(row[column] for column in _KEY))


def _place(key: SpanKey) -> tuple[Any, ...]:
    return key.start_time, key.start_ns, key.trace_id.int, key.span_id


def _parameters(key: SpanKey, columns: dict[str, Any]) -> dict[str, Any]:
    return {
        **{f"old_{name}": value for name, value in key._asdict().items()},
        **{f"new_{name}": value for name, value in columns.items()},
    }


def _selecting() -> sa.Select[Any]:
    spans = _SPANS.c
    reports = reports_usage(spans)
    # Only where it matters: reading an attribute unpacks all of them.
    tier = sa.case((reports, stored_tier(spans.attributes)))
    return sa.select(
        *(spans[column] for column in _KEY),
        *(spans[column] for column in ("provider", "model", "response_model", "response_id")),
        *(spans[column] for column in _CHANGED),
        reports.label("reports_usage"),
        tier.label("service_tier"),
    )


_SELECT: Final = _selecting()


def _read(connection: Connection, keys: Sequence[SpanKey]) -> Sequence[sa.RowMapping]:
    given = {f"given_{name}": [getattr(key, name) for key in keys] for name in _KEY}
    starts = given["given_start_time"]
    bounds = {"earliest": min(starts), "latest": max(starts)}
    return connection.execute(_READ, given | bounds).mappings().all()


def _reading() -> Any:
    arrays = (bindparam(f"given_{n}", type_=sa.ARRAY(_SPANS.c[n].type)) for n in _KEY)
    names = (sa.column(n, _SPANS.c[n].type) for n in _KEY)
    given = sa.func.unnest(*arrays).table_valued(*names).render_derived(name="given")
    same = (_SPANS.c[name] == given.c[name] for name in _KEY)
    return (
        _SELECT.select_from(given)
        .join(_SPANS, sa.and_(*same))
        # Known in advance, these bounds prune partitions when the statement is planned.
        .where(_SPANS.c.start_time.between(bindparam("earliest"), bindparam("latest")))
    )


_READ: Final = _reading()
_UPDATE: Final = (
    sa.update(_SPANS)
    .where(*(_SPANS.c[column] == bindparam(f"old_{column}") for column in _KEY))
    .values({column: bindparam(f"new_{column}") for column in _CHANGED})
)
