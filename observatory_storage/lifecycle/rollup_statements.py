# ruff: noqa: S608 - names of tables and columns are constants, the schema is quoted
"""The statements that compute rollups: from spans, and from the rollups of finer units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from observatory_storage.models.rollup_tables import DURATION_SCALE, TOKEN_DETAIL_SUMS

__all__ = ["KINDS_OF_ROLLUPS", "RollupKind", "latency_of_hours", "merged", "minutes", "personal"]

_ORIGIN: Final = "timestamptz '2000-01-01 00:00:00+00'"
_CELLS_PER_LOG: Final = (1 << DURATION_SCALE) / math.log(2)
_ZERO_CELL: Final = -32768
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_COSTS: Final = ("prompt_cost_usd", "completion_cost_usd", "total_cost_usd")


def _count(condition: str = "") -> str:
    """The number of spans that the spans stand for which meet the condition."""
    among = f" FILTER (WHERE {condition})" if condition else ""
    return f"count(*){among} + coalesce(sum(sample_weight - 1){among}, 0)"


def _sum(value: str, condition: str = "") -> str:
    """The sum of a value over these spans."""
    among = f" FILTER (WHERE {condition})" if condition else ""
    # The condition on the weight is first: it spares the product for spans without one.
    conditions = " AND ".join(filter(None, ("sample_weight IS NOT NULL", condition)))
    more = f"sum({value}::numeric * (sample_weight - 1)) FILTER (WHERE {conditions})"
    return f"sum({value}){among} + coalesce({more}, 0)"


# Column -> the aggregate of spans, or of rows that were aggregated already.
_USAGE: Final = {
    "span_count": _count(),
    "error_count": _count("status = 'error'"),
    "usage_span_count": _count("has_usage"),
    "unpriced_span_count": _count("has_usage AND total_cost_usd IS NULL"),
    **{name: _sum(name, "has_usage") for name in (*_TOKENS, *_COSTS)},
}
_USAGE_MERGED: Final = {
    **{name: f"sum({name})::bigint" for name in tuple(_USAGE)[:4]},
    **{name: f"sum({name})" for name in (*_TOKENS, *_COSTS)},
}
_DETAILS_MERGED: Final = {name: f"sum({name})" for name in TOKEN_DETAIL_SUMS}
_DURATIONS: Final = {
    "duration_count": _count("duration_us IS NOT NULL"),
    "duration_sum_us": f"{_sum('duration_us')} + ({_sum('duration_ns')}) * 0.001",
    "duration_min_us": "min(took)",
    "duration_max_us": "max(took)",
}
_DURATIONS_MERGED: Final = {
    "duration_count": "sum(duration_count)::bigint",
    "duration_sum_us": "sum(duration_sum_us)",
    "duration_min_us": "min(duration_min_us)",
    "duration_max_us": "max(duration_max_us)",
}
_CELLS_MERGED: Final = {
    "duration_zeros": f"coalesce(sum(n) FILTER (WHERE cell = {_ZERO_CELL}), 0)::bigint",
    "duration_indexes": f"array_agg(cell ORDER BY cell) FILTER (WHERE cell > {_ZERO_CELL})",
    "duration_counts": f"array_agg(n ORDER BY cell) FILTER (WHERE cell > {_ZERO_CELL})",
}
_PERCENTILES: Final = {"p50_us": 0.5, "p90_us": 0.9, "p95_us": 0.95, "p99_us": 0.99}
# By bucket it would be smaller, but all rows would have to be sorted.
_POSITION: Final = "row_number() OVER ()"
_LAST: Final = "ORDER BY last_seen DESC, trace_id, span_id"


@dataclass(frozen=True)
class RollupKind:
    """A kind of rollups: what its rows are grouped by, and how they are merged.

    Attributes:
        name: the tables are `<name>_rollups_<unit>`.
        keys: the columns that it groups by.
        sums: the columns that are aggregated, with their aggregates of rows to be merged.
        has_durations: whether it has a histogram of durations.
        has_percentiles: whether it has percentiles, computed from the histogram.
    """

    name: str
    keys: tuple[str, ...]
    sums: Mapping[str, str] = field(default_factory=dict)
    has_durations: bool = False
    has_percentiles: bool = False

    def table(self, unit: str) -> str:
        return f"{self.name}_rollups_{unit}"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, without the bucket and the position."""
        cells = _CELLS_MERGED if self.has_durations else ()
        return (*self.keys, *self.sums, *cells, *(_PERCENTILES if self.has_percentiles else ()))


_SPANS: Final = RollupKind(
    "span",
    ("service_name", "name", "operation", "provider", "model", "environment", "status", "kind"),
    {**_USAGE_MERGED, **_DETAILS_MERGED, **_DURATIONS_MERGED},
    has_durations=True,
)
_LATENCY: Final = RollupKind(
    "latency",
    ("service_name", "name"),
    _DURATIONS_MERGED,
    has_durations=True,
    has_percentiles=True,
)
_USERS: Final = RollupKind("user", ("user_id", "provider", "model"), _USAGE_MERGED)
_SESSIONS: Final = RollupKind(
    "session", ("session_id", "user_id"), {"span_count": "sum(span_count)::bigint"}
)
_ERRORS: Final = RollupKind(
    "error",
    ("service_name", "name", "error_type", "user_id", "session_id"),
    {
        "span_count": "sum(span_count)::bigint",
        "first_seen": "min(first_seen)",
        "last_seen": "max(last_seen)",
        "trace_id": f"(array_agg(trace_id {_LAST}))[1]",
        "span_id": f"(array_agg(span_id {_LAST}))[1]",
    },
)
KINDS_OF_ROLLUPS: Final = (_SPANS, _LATENCY, _USERS, _SESSIONS, _ERRORS)


def minutes(schema: str) -> str:
    """Inserts the rollups of the minutes in [:start, :end) from spans.

    Args:
        schema: the quoted name of the schema.
    """
    details = {
        name: f"sum(CASE jsonb_typeof(token_details -> '{name}') WHEN 'number'"
        f" THEN (token_details -> '{name}')::numeric * coalesce(sample_weight, 1) END)"
        " FILTER (WHERE has_details)"
        for name in TOKEN_DETAIL_SUMS
    }
    by = f"bucket, {', '.join(_SPANS.keys)}"
    cell = f"(CASE WHEN took > 0 THEN ceil(ln(took) * {_CELLS_PER_LOG!r})::int - 1"
    cell += f" WHEN took IS NOT NULL THEN {_ZERO_CELL} END)::smallint"
    groups = (
        f"SELECT {by}, {_aggregates({**_USAGE, **details, **_DURATIONS})},"
        f" array_agg({cell}) FILTER (WHERE took IS NOT NULL) AS cells,"
        " array_agg(sample_weight) FILTER (WHERE took IS NOT NULL) AS weights"
        f" FROM ({_raw(schema)}) AS spans GROUP BY {by}"
    )
    # The cells of each group are counted by themselves: nearly each span may have its own.
    counted = (
        f"SELECT {_aggregates(_CELLS_MERGED)} FROM"
        f" (SELECT cell, {_count()} AS n FROM unnest(cells, weights)"
        " AS spans (cell, sample_weight) GROUP BY cell) AS each"
    )
    columns = ", ".join((*_SPANS.keys, *_SPANS.sums, *_CELLS_MERGED))
    return (
        _into(_SPANS, schema, "minute")
        + f"SELECT bucket, {_POSITION}, {columns}"
        + f" FROM ({groups}) AS groups CROSS JOIN LATERAL ({counted}) AS counted"
    )


def _raw(schema: str) -> str:
    """The spans in [:start, :end), with what several aggregates need."""
    has_usage = "(total_tokens IS NOT NULL OR total_cost_usd IS NOT NULL)"
    return (
        f"SELECT date_bin('1 minute', start_time, {_ORIGIN}) AS bucket,"
        f" {', '.join(_SPANS.keys)}, {', '.join((*_TOKENS, *_COSTS))}, token_details,"
        " sample_weight,"
        f" duration_us, duration_ns, duration_us + duration_ns / 1000::double precision AS took,"
        f" {has_usage} AS has_usage, token_details IS NOT NULL AND {has_usage} AS has_details"
        f" FROM {schema}.trace_spans WHERE start_time >= :start AND start_time < :end"
        # OFFSET keeps what is computed here from being computed for each aggregate.
        " OFFSET 0"
    )


def personal(schema: str) -> str:
    """Inserts the rollups of users, sessions and errors of the hours in [:start, :end)."""
    spans = (
        f"SELECT date_bin('1 hour', start_time, {_ORIGIN}) AS bucket, start_time, trace_id,"
        " span_id, service_name, name, status, error_type, user_id,"
        f" session_id, provider, model, {', '.join((*_TOKENS, *_COSTS))}, sample_weight,"
        " total_tokens IS NOT NULL OR total_cost_usd IS NOT NULL AS has_usage"
        f" FROM {schema}.trace_spans WHERE start_time >= :start AND start_time < :end"
        " AND (user_id IS NOT NULL OR session_id IS NOT NULL OR status = 'error')"
    )
    last = "ORDER BY start_time DESC, trace_id, span_id"
    of_errors = {
        "span_count": _count(),
        "first_seen": "min(start_time)",
        "last_seen": "max(start_time)",
        "trace_id": f"(array_agg(trace_id {last}))[1]",
        "span_id": f"(array_agg(span_id {last}))[1]",
    }
    inserted = [
        f"{kind.name}s AS ("
        + _into(kind, schema, "hour")
        + f"SELECT bucket, {_POSITION}, {', '.join(kind.keys)}, {_aggregates(sums)}"
        + f" FROM spans WHERE {condition} GROUP BY bucket, {', '.join(kind.keys)} RETURNING bucket)"
        for kind, sums, condition in (
            (_USERS, _USAGE, "user_id IS NOT NULL"),
            (_SESSIONS, {"span_count": _count()}, "session_id IS NOT NULL"),
            (_ERRORS, of_errors, "status = 'error'"),
        )
    ]
    counted = ", ".join(
        f"(SELECT count(DISTINCT bucket) FROM {kind.name}s)"
        for kind in (_USERS, _SESSIONS, _ERRORS)
    )
    return f"WITH spans AS MATERIALIZED ({spans}), {', '.join(inserted)} SELECT {counted}"


def merged(kind: RollupKind, schema: str, of: str, unit: str) -> str:
    """Inserts the rollups of the buckets in [:start, :end) from those of a finer unit."""
    keys = ", ".join(kind.keys)
    bucket = f"date_bin('1 {unit}', bucket, {_ORIGIN})"
    finer = f"FROM {schema}.{kind.table(of)} WHERE bucket >= :start AND bucket < :end"
    if not kind.has_durations:
        rows = _aggregates(kind.sums)
        return (
            _into(kind, schema, unit)
            + f"SELECT bucket, {_POSITION}, {keys}, {rows}"
            + f" FROM (SELECT {bucket} AS bucket, {keys}, {', '.join(kind.sums)} {finer}) AS finer"
            + f" GROUP BY bucket, {keys}"
        )
    sums = ", ".join(kind.sums)
    none = ", ".join("NULL" for _ in kind.sums)
    rows = (
        f"SELECT {bucket} AS bucket, {keys}, NULL::smallint AS cell, NULL::numeric AS n, {sums}"
        f" {finer} UNION ALL SELECT {bucket}, {keys}, cell, n, {none}"
        f" {finer.replace(' WHERE', _UNNESTED, 1)}"
    )
    cells = (
        f"SELECT bucket, {keys}, cell, sum(n)::bigint AS n, "
        + _aggregates(kind.sums)
        + f" FROM ({rows}) AS finer GROUP BY bucket, {keys}, cell"
    )
    return _inserting(kind, schema, unit, cells)


_UNNESTED: Final = (
    f" CROSS JOIN LATERAL (SELECT ({_ZERO_CELL})::smallint AS cell, duration_zeros::numeric AS n"
    " WHERE duration_zeros > 0 UNION ALL SELECT * FROM unnest(duration_indexes, duration_counts)"
    ") AS cells WHERE"
)


def latency_of_hours(schema: str) -> str:
    """Inserts the durations of the hours in [:start, :end), from the rollups of its spans."""
    sums = ", ".join(_DURATIONS_MERGED)
    none = ", ".join("NULL" for _ in _DURATIONS_MERGED)
    finer = f"FROM {schema}.span_rollups_hour WHERE bucket >= :start AND bucket < :end"
    rows = (
        f"SELECT bucket, service_name, name, NULL::smallint AS cell, NULL::numeric AS n, {sums}"
        f" {finer} UNION ALL SELECT bucket, service_name, name, cell, n, {none}"
        f" {finer.replace(' WHERE', _UNNESTED, 1)}"
    )
    cells = (
        "SELECT bucket, service_name, name, cell,"
        f" sum(n)::bigint AS n, {_aggregates(_DURATIONS_MERGED)} FROM ({rows}) AS spans"
        " GROUP BY GROUPING SETS"
        " ((bucket, service_name, name, cell), (bucket, service_name, cell), (bucket, cell))"
    )
    return _inserting(_LATENCY, schema, "hour", cells)


def _inserting(kind: RollupKind, schema: str, unit: str, cells: str) -> str:
    """Inserts rows from rows by bucket, keys and cell of the histogram."""
    by = f"bucket, {', '.join(kind.keys)}"
    rows = (
        f"SELECT bucket, {_POSITION} AS position, {', '.join(kind.keys)}, "
        + _aggregates({**kind.sums, **_CELLS_MERGED})
        + f" FROM ({cells}) AS cells GROUP BY {by}"
    )
    if kind.has_percentiles:
        rows = (
            f"SELECT rows.*, percentiles.* FROM ({rows}) AS rows"
            f" CROSS JOIN LATERAL ({_percentiles()}) AS percentiles"
        )
    return _into(kind, schema, unit) + rows


def _percentiles() -> str:
    """The percentiles of a row's histogram, as `DurationHistogram.percentiles` computes them."""
    base = 2 ** (2**-DURATION_SCALE)
    value = f"power({base!r}::double precision, cell) * {2 * base / (1 + base)!r}"
    cells = (
        "SELECT greatest(0, duration_min_us) AS value, duration_zeros::numeric AS below"
        f" UNION ALL SELECT greatest(duration_min_us, least(duration_max_us, {value})),"
        " duration_zeros + sum(n) OVER (ORDER BY cell)"
        " FROM unnest(duration_indexes, duration_counts) AS each (cell, n)"
    )

    def at(share: float) -> str:
        place = f"{share} * (duration_count - 1)"
        low, high = (
            f"min(value) FILTER (WHERE below > {rounded}({place}))" for rounded in ("floor", "ceil")
        )
        return f"{low} + ({high} - {low}) * ({place} - floor({place}))::double precision"

    of_each = _aggregates({name: at(share) for name, share in _PERCENTILES.items()})
    return f"SELECT {of_each} FROM ({cells}) AS cells"


def _into(kind: RollupKind, schema: str, unit: str) -> str:
    columns = ", ".join(("bucket", "position", *kind.columns))
    return f"INSERT INTO {schema}.{kind.table(unit)} ({columns}) "


def _aggregates(named: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{value} AS {name}" for name, value in dict(named).items())
