"""Queries that aggregate many rows."""

from __future__ import annotations

import random
from dataclasses import astuple
from typing import Final

from observatory_storage import CostSummary, LatencyPercentiles, SpanFilters, SpanStats
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.reading.dataset import DAY, Dataset
from tests.benchmarks.reading.question import Arguments, Hand, Question, Rows

__all__ = ["SUMMING"]


def _all_days(data: Dataset, chance: random.Random) -> Arguments:
    return {"start_time": data.first_day, "end_time": data.end}


def _a_day(data: Dataset, chance: random.Random) -> Arguments:
    day = data.first_day + chance.randrange(data.sizes.days) * DAY
    return {"start_time": day, "end_time": day + DAY}


_COST: Final = """
    SELECT model, date_trunc('day', start_time, 'UTC') AS day, count(*),
           count(*) FILTER (WHERE total_cost_usd IS NULL),
           sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint, sum(total_tokens)::bigint,
           sum(prompt_cost_usd), sum(completion_cost_usd), sum(total_cost_usd) AS cost
    FROM trace_spans
    WHERE start_time >= %(start_time)s AND start_time < %(end_time)s
      AND (total_tokens IS NOT NULL OR total_cost_usd IS NOT NULL)
    GROUP BY 1, 2 ORDER BY day, cost DESC NULLS LAST, model
"""


def _ask_cost(uow: UnitOfWork, arguments: Arguments) -> list[CostSummary]:
    return uow.metrics.get_cost_summary(**arguments, group_by=["model"], bucket_size_secs=86_400)


def _cost_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    return connection.execute(_COST, arguments).fetchall()


def _cost_rows(found: list[CostSummary]) -> Rows:
    return [(one.model, *astuple(one)[1:-1]) for one in found]  # all but the source


_PERCENTILES: Final = """
    SELECT date_trunc('hour', start_time, 'UTC') AS hour, count(*),
           percentile_cont(ARRAY[0.5, 0.9, 0.95, 0.99]) WITHIN GROUP (
               ORDER BY duration_us::float8 + duration_ns / 1000.0
           )
    FROM trace_spans
    WHERE start_time >= %(start_time)s AND start_time < %(end_time)s AND duration_us IS NOT NULL
    GROUP BY hour ORDER BY hour
"""


def _ask_percentiles(uow: UnitOfWork, arguments: Arguments) -> list[LatencyPercentiles]:
    return uow.metrics.get_latency_percentiles(**arguments, bucket_size_secs=3600)


def _percentiles_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    rows = connection.execute(_PERCENTILES, arguments).fetchall()
    return [(hour, count, *values) for hour, count, values in rows]


_STATS: Final = """
    SELECT service_name, date_trunc('hour', start_time, 'UTC') AS hour, count(*) AS spans,
           count(DISTINCT trace_id), count(*) FILTER (WHERE status = 'error'),
           percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
               ORDER BY duration_us::float8 + duration_ns / 1000.0
           ),
           sum(total_tokens)::bigint, sum(total_cost_usd)
    FROM trace_spans WHERE start_time >= %(start_time)s AND start_time < %(end_time)s
    GROUP BY 1, 2 ORDER BY hour, spans DESC, service_name
"""


def _ask_stats(uow: UnitOfWork, arguments: Arguments) -> list[SpanStats]:
    return uow.traces.get_stats(
        SpanFilters(**arguments), group_by=["service_name"], bucket_size_secs=3600
    )


def _stats_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    rows = connection.execute(_STATS, arguments).fetchall()
    return [(*row[:5], *row[5], *row[6:]) for row in rows]


def _stats_rows(found: list[SpanStats]) -> Rows:
    return [
        (
            one.group["service_name"],
            one.timestamp,
            one.span_count,
            one.trace_count,
            one.error_count,
            one.p50_duration_us,
            one.p95_duration_us,
            one.total_tokens,
            one.total_cost_usd,
        )
        for one in found
    ]


SUMMING: Final = (
    Question(
        "cost by day and model, of all days",
        _all_days,
        _ask_cost,
        _cost_by_hand,
        _cost_rows,
        1500,
        paged=False,
    ),
    Question(
        "latency percentiles by hour, of a day",
        _a_day,
        _ask_percentiles,
        _percentiles_by_hand,
        lambda found: [astuple(one)[:-1] for one in found],
        1500,
        paged=False,
    ),
    Question(
        "statistics by hour and service, of a day",
        _a_day,
        _ask_stats,
        _stats_by_hand,
        _stats_rows,
        paged=False,
    ),
)
