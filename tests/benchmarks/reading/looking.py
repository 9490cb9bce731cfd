"""Queries for one trace, for words, and for names of services and operations."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

from observatory_storage import LogFilters, SpanTree
from observatory_storage.models import LogRecord, Trace, TraceSpan
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.reading.dataset import DAY, Dataset
from tests.benchmarks.reading.question import (
    LISTED_LOG_COLUMNS,
    LISTED_SPAN_COLUMNS,
    LOG_COLUMNS,
    PAGE,
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    Arguments,
    Hand,
    Question,
    Rows,
    listed,
    plain,
)
from tests.benchmarks.reading.spans import SERVICES

__all__ = ["LOOKING"]

_TRACE: Final = f"SELECT {listed(TRACE_COLUMNS)} FROM traces t WHERE t.id = %s"
_SPANS: Final = f"""
    SELECT {listed(SPAN_COLUMNS)} FROM trace_spans t
    WHERE t.trace_id = %s AND t.start_time BETWEEN %s AND %s
    ORDER BY t.start_time, t.start_ns, t.span_id
"""
_START: Final = TRACE_COLUMNS.index("start_time")
_LAST_START: Final = TRACE_COLUMNS.index("last_span_start")


def _id(data: Dataset, chance: random.Random) -> Arguments:
    return {"trace_id": data.any_trace(chance).asked.trace_id}


def _ask_trace(uow: UnitOfWork, arguments: Arguments) -> tuple[Trace, list[TraceSpan]]:
    trace = uow.traces.get_by_trace_id(arguments["trace_id"])
    return trace, uow.traces.get_spans(trace.id)


def _trace_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    key = UUID(hex=arguments["trace_id"])
    (trace,) = connection.execute(_TRACE, [key]).fetchall()
    spans = connection.execute(_SPANS, [key, trace[_START], trace[_LAST_START]])
    return [trace, *spans]


def _trace_rows(found: tuple[Trace, list[TraceSpan]]) -> Rows:
    trace, spans = found
    return [*plain([trace], TRACE_COLUMNS), *plain(spans, SPAN_COLUMNS)]


def _ask_tree(uow: UnitOfWork, arguments: Arguments) -> SpanTree:
    return uow.traces.get_tree(arguments["trace_id"])


_BOUNDS: Final = "SELECT start_time, last_span_start FROM traces WHERE id = %s"
_NESTED: Final = f"""
    SELECT {listed(LISTED_SPAN_COLUMNS)} FROM trace_spans t
    WHERE t.trace_id = %s AND t.start_time BETWEEN %s AND %s ORDER BY t.start_time, t.start_ns
"""
_SPAN_ID: Final = LISTED_SPAN_COLUMNS.index("span_id")
_PARENT: Final = LISTED_SPAN_COLUMNS.index("parent_span_id")


def _tree_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    """The spans with their depths, without a critical path, for complete traces only."""
    key = UUID(hex=arguments["trace_id"])
    ((first, last),) = connection.execute(_BOUNDS, [key]).fetchall()
    children: dict[str | None, list[tuple[Any, ...]]] = defaultdict(list)
    for span in connection.execute(_NESTED, [key, first, last]):
        children[span[_PARENT]].append(span)
    placed = []
    waiting = [(0, span) for span in reversed(children[None])]
    while waiting:
        depth, span = waiting.pop()
        placed.append((*span, depth))
        waiting += [(depth + 1, below) for below in reversed(children[span[_SPAN_ID]])]
    return placed


def _tree_rows(tree: SpanTree) -> Rows:
    spans = plain([node.span for node in tree.nodes], LISTED_SPAN_COLUMNS)
    return [(*span, node.depth) for span, node in zip(spans, tree.nodes, strict=True)]


_LOGS: Final = f"""
    SELECT {listed(LOG_COLUMNS)} FROM logs t
    WHERE t.trace_id = %s ORDER BY t.timestamp, t.timestamp_ns, t.id
"""


def _ask_logs(uow: UnitOfWork, arguments: Arguments) -> list[LogRecord]:
    return uow.logs.get_by_trace(arguments["trace_id"])


def _logs_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    return connection.execute(_LOGS, [UUID(hex=arguments["trace_id"])]).fetchall()


def _log_words(data: Dataset, chance: random.Random) -> Arguments:
    day = data.first_day + chance.randrange(data.sizes.days) * DAY
    body = chance.choice(data.any_trace(chance, day).logs)["body"].partition(" request=")[0]
    return {
        "text": data.prose.telling_words(body, chance, 2),
        "start_time": day,
        "end_time": day + DAY,
    }


_BODY: Final = sa.literal_column("t.body", sa.Text)
_WORDS: Final = str(
    LogRecord.search_vector(_BODY).compile(
        dialect=psycopg_dialect()  # type: ignore[no-untyped-call]
    )
)
_LOG_TEXT: Final = f"""
    SELECT {listed(LISTED_LOG_COLUMNS)} FROM logs t
    WHERE t.timestamp >= %(start_time)s AND t.timestamp < %(end_time)s AND t.body IS NOT NULL
      AND {_WORDS} @@ websearch_to_tsquery('simple', %(text)s)
    ORDER BY t.timestamp DESC, t.timestamp_ns DESC, t.id DESC LIMIT {PAGE + 1}
"""


def _ask_log_text(uow: UnitOfWork, arguments: Arguments) -> Iterable[LogRecord]:
    return uow.logs.list(LogFilters(**arguments, limit=PAGE))


def _log_text_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    return connection.execute(_LOG_TEXT, arguments).fetchall()[:PAGE]


def _nothing(data: Dataset, chance: random.Random) -> Arguments:
    return {}


_SERVICES: Final = """
    WITH RECURSIVE found (name) AS (
        SELECT min(service_name) FROM trace_spans
        UNION ALL
        SELECT (SELECT min(service_name) FROM trace_spans WHERE service_name > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL
"""


def _ask_services(uow: UnitOfWork, arguments: Arguments) -> list[str]:
    return uow.traces.services()


def _services_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    return connection.execute(_SERVICES).fetchall()


def _of_service(data: Dataset, chance: random.Random) -> Arguments:
    return {"service_name": chance.choice(SERVICES)}


_OPERATIONS: Final = """
    WITH RECURSIVE found (name, kind) AS (
        (SELECT name, kind FROM trace_spans WHERE service_name = %(service_name)s
         ORDER BY name, kind LIMIT 1)
        UNION ALL
        SELECT next.name, next.kind FROM found CROSS JOIN LATERAL (
            SELECT name, kind FROM trace_spans
            WHERE service_name = %(service_name)s AND (name, kind) > (found.name, found.kind)
            ORDER BY name, kind LIMIT 1
        ) next
    )
    SELECT name, kind FROM found
"""


def _ask_operations(uow: UnitOfWork, arguments: Arguments) -> Rows:
    return uow.traces.operations(**arguments)


def _operations_by_hand(connection: Hand, arguments: Arguments) -> Rows:
    return connection.execute(_OPERATIONS, arguments).fetchall()


LOOKING: Final = (
    Question("trace by id, with its spans", _id, _ask_trace, _trace_by_hand, _trace_rows, 20),
    Question("span tree", _id, _ask_tree, _tree_by_hand, _tree_rows, 20),
    Question(
        "logs of a trace",
        _id,
        _ask_logs,
        _logs_by_hand,
        lambda logs: plain(logs, LOG_COLUMNS),
        20,
    ),
    Question(
        "text in the logs of a day",
        _log_words,
        _ask_log_text,
        _log_text_by_hand,
        lambda logs: plain(logs, LISTED_LOG_COLUMNS),
        100,
    ),
    Question(
        "services",
        _nothing,
        _ask_services,
        _services_by_hand,
        lambda names: [(name,) for name in names],
    ),
    Question(
        "operations of a service",
        _of_service,
        _ask_operations,
        _operations_by_hand,
        lambda operations: [tuple(one) for one in operations],
    ),
)
