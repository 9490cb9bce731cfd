"""Queries that find traces by properties of their spans."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import sqlalchemy as sa
from psycopg.types.json import Jsonb
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

from observatory_storage import TraceFilters
from observatory_storage.llm.content_search import (
    content_of_attributes,
    content_of_event,
    content_vector,
)
from observatory_storage.models import Trace
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.reading.dataset import DAY, Dataset
from tests.benchmarks.reading.question import (
    PAGE,
    TRACE_COLUMNS,
    Arguments,
    Hand,
    Question,
    Rows,
    listed,
    plain,
    window,
)
from tests.benchmarks.reading.spans import ORDER, RARE_MODEL, REGION, REGIONS, SERVICES

__all__ = ["FINDING"]

_SLOW_US: Final = 2_500_000

# One row more than a page has shows whether there is another page.
_NEWEST: Final = f"ORDER BY t.start_time DESC, t.id DESC LIMIT {PAGE + 1}"


def _walk(conditions: str) -> str:
    """Walk the newest traces and check their spans until the page is full: for common values."""
    return f"""
        SELECT {listed(TRACE_COLUMNS)} FROM traces t
        CROSS JOIN LATERAL (
            SELECT 1 FROM trace_spans s
            WHERE s.trace_id = t.id AND s.start_time BETWEEN t.start_time AND t.last_span_start
              AND s.start_time >= %(start_time)s AND s.start_time < %(end_time)s AND {conditions}
            LIMIT 1
        ) found
        WHERE t.start_time < %(end_time)s AND t.last_span_start >= %(start_time)s
        {_NEWEST}
    """


def _spans_first(conditions: str) -> str:
    """Find the spans by their index, then their traces: for rare values."""
    return f"""
        WITH found AS MATERIALIZED (
            SELECT DISTINCT s.trace_id FROM trace_spans s WHERE {conditions}
        )
        SELECT {listed(TRACE_COLUMNS)} FROM traces t WHERE t.id IN (SELECT trace_id FROM found)
        {_NEWEST}
    """


_IN_TIME: Final = "s.start_time >= %(start_time)s AND s.start_time < %(end_time)s"


def _traces(
    name: str,
    draw: Callable[[Dataset, random.Random], Arguments],
    statement: str,
    target_ms: float | None,
    *,
    paged: bool = True,
) -> Question:
    def ask(uow: UnitOfWork, arguments: Arguments) -> Any:
        return uow.traces.list(TraceFilters(**arguments, limit=PAGE))

    def by_hand(connection: Hand, arguments: Arguments) -> Rows:
        given = dict(arguments)
        if "attributes" in given:
            given["attributes"] = Jsonb(given["attributes"])
        return connection.execute(statement, given).fetchall()[:PAGE]

    def rows(page: Iterable[Trace]) -> Rows:
        return plain(page, TRACE_COLUMNS)

    return Question(name, draw, ask, by_hand, rows, target_ms, paged)


def _in_open_day(
    name: str,
    draw: Callable[[Dataset, random.Random], Arguments],
    of_spans: str,
    of_events: str,
    of_newest: str = "true",
) -> Question:
    """By hand, each slice with an index is asked by its bounds, and the newest rows are read.

    Args:
        of_newest: a cheaper condition, which rows without an index meet too.
    """

    def by_hand(connection: Hand, arguments: Arguments) -> Rows:
        given = dict(arguments)
        if "attributes" in given:
            given["attributes"] = Jsonb(given["attributes"])
        found = []
        for alias, table, time, condition in (
            ("s", "trace_spans", "start_time", of_spans),
            ("e", "trace_events", "span_start_time", of_events),
        ):
            edges = ["%(start_time)s", *_ends_of_slices(connection, table), "%(end_time)s"]
            for low, high in pairwise(edges):
                cheaper = of_newest.format(alias) if high == edges[-1] else "true"
                found.append(
                    f"SELECT {alias}.trace_id FROM {table} {alias} WHERE {cheaper} AND {condition}"
                    f" AND {alias}.{time} >= {low} AND {alias}.{time} < {high}"
                )
        statement = f"""
            WITH found AS MATERIALIZED ({" UNION ALL ".join(found)})
            SELECT {listed(TRACE_COLUMNS)} FROM traces t
            WHERE t.id IN (SELECT trace_id FROM found) {_NEWEST}
        """
        return connection.execute(statement, given).fetchall()[:PAGE]

    return replace(_traces(name, draw, "", 60, paged=False), by_hand=by_hand)


@lru_cache
def _ends_of_slices(connection: Hand, table: str) -> list[str]:
    """The ends of the slices of a table, as literals. The first slice begins with the day."""
    rows = connection.execute(
        "SELECT DISTINCT substring(pg_get_expr(indpred, indrelid) FROM '< (''[^'']+'')')"
        " FROM pg_index WHERE indexrelid::regclass::text ~ %s AND indisvalid ORDER BY 1",
        [f"^ix_{table}_p.*_slice_"],
    )
    return [end for (end,) in rows]


def _service(data: Dataset, chance: random.Random) -> Arguments:
    return {"service_name": chance.choice(SERVICES), **window(data, chance, 1)}


def _operation(data: Dataset, chance: random.Random) -> Arguments:
    span = chance.choice(data.any_trace(chance).spans)
    return {
        "service_name": span["service_name"],
        "operation": span["name"],
        **window(data, chance, 5),
    }


def _errors(data: Dataset, chance: random.Random) -> Arguments:
    service = chance.choice(SERVICES)
    return {"service_name": service, "status": "error", **window(data, chance, 5)}


def _slow(data: Dataset, chance: random.Random) -> Arguments:
    service = chance.choice(SERVICES)
    return {
        "service_name": service,
        "min_duration_us": _SLOW_US,
        **window(data, chance, 10),
    }


def _model(data: Dataset, chance: random.Random) -> Arguments:
    models = [
        span["attributes"]["gen_ai.request.model"]
        for span in data.any_trace(chance).spans
        if "gen_ai.request.model" in span["attributes"]
    ]
    return {"model": chance.choice(models or [RARE_MODEL]), **window(data, chance, 1)}


def _rare_model(data: Dataset, chance: random.Random) -> Arguments:
    return {"model": RARE_MODEL}


def _user(data: Dataset, chance: random.Random) -> Arguments:
    return {"user_id": data.any_trace(chance).asked.user}


def _session(data: Dataset, chance: random.Random) -> Arguments:
    return {"session_id": data.any_trace(chance).asked.session}


def _order_on(data: Dataset, chance: random.Random, day: datetime) -> Arguments:
    order = f"order-{data.any_trace(chance, day).asked.number:08d}"
    return {"attributes": {ORDER: order}, "start_time": day, "end_time": day + DAY}


def _closed_order(data: Dataset, chance: random.Random) -> Arguments:
    return _order_on(data, chance, data.any_closed_day(chance))


def _open_order(data: Dataset, chance: random.Random) -> Arguments:
    return _order_on(data, chance, data.open_day)


def _region(data: Dataset, chance: random.Random) -> Arguments:
    return {"attributes": {REGION: chance.choice(REGIONS)}, **window(data, chance, 1)}


_OF_SERVICE: Final = "s.service_name = %(service_name)s"
_WITH_ATTRIBUTES: Final = (
    "(s.attributes @> %(attributes)s OR s.resource_attributes @> %(attributes)s"
    " OR s.scope_attributes @> %(attributes)s"
    " OR s.links @> jsonb_build_array(jsonb_build_object('attributes', %(attributes)s)))"
)
# One index has all attributes of a span. Those of events have another one.
_BY_ATTRIBUTES: Final = f"""
    WITH found AS MATERIALIZED (
        SELECT s.trace_id FROM trace_spans s WHERE {_IN_TIME} AND {_WITH_ATTRIBUTES}
        UNION
        SELECT e.trace_id FROM trace_events e
        WHERE e.span_start_time >= %(start_time)s AND e.span_start_time < %(end_time)s
          AND e.attributes @> %(attributes)s
    )
    SELECT {listed(TRACE_COLUMNS)} FROM traces t WHERE t.id IN (SELECT trace_id FROM found)
    {_NEWEST}
"""


def _words_on(data: Dataset, chance: random.Random, day: datetime) -> Arguments:
    told = data.any_trace(chance, day)
    messages = [
        span["attributes"]["gen_ai.input.messages"]
        for span in told.spans
        if "gen_ai.input.messages" in span["attributes"]
    ]
    # A trace of very few spans has none: then words that may be nowhere.
    asked = messages[0][0]["parts"][0]["content"] if messages else data.prose.text(chance, 1)
    words = data.prose.telling_words(asked, chance, 2)
    return {"text": words, "start_time": day, "end_time": day + DAY}


def _closed_words(data: Dataset, chance: random.Random) -> Arguments:
    return _words_on(data, chance, data.any_closed_day(chance))


def _open_words(data: Dataset, chance: random.Random) -> Arguments:
    return _words_on(data, chance, data.open_day)


def _content(alias: str) -> str:
    attributes = sa.literal_column(f"{alias}.attributes", JSONB)
    name = sa.literal_column(f"{alias}.name", sa.Text)
    is_event = alias == "e"
    content = content_of_event(name, attributes) if is_event else content_of_attributes(attributes)
    dialect = psycopg_dialect()  # type: ignore[no-untyped-call]
    return str(content_vector(content).compile(dialect=dialect))


def _has_words(alias: str) -> str:
    return f"{_content(alias)} @@ websearch_to_tsquery('simple', %(text)s)"


_HAVING_WORDS: Final = f"""
        WITH found AS MATERIALIZED (
            SELECT s.trace_id FROM trace_spans s
            WHERE {_IN_TIME} AND {_has_words("s")}
            UNION
            SELECT e.trace_id FROM trace_events e
            WHERE e.span_start_time >= %(start_time)s AND e.span_start_time < %(end_time)s
              AND {_has_words("e")}
        )
        SELECT {listed(TRACE_COLUMNS)} FROM traces t WHERE t.id IN (SELECT trace_id FROM found)
        {_NEWEST}
    """


# A search for letters is much faster than parsing the prompts into words.
_LETTERS: Final = (
    "{0}.attributes::text ILIKE ALL"
    " (SELECT '%%' || word || '%%' FROM string_to_table(%(text)s, ' ') AS word)"
)

FINDING: Final = (
    _traces("recent traces of a service, of a day", _service, _walk(_OF_SERVICE), 20),
    _traces(
        "service and operation, of five days",
        _operation,
        _walk(f"{_OF_SERVICE} AND s.name = %(operation)s"),
        None,
    ),
    _traces(
        "errors of a service, of five days",
        _errors,
        _spans_first(f"{_OF_SERVICE} AND s.status = 'error' AND {_IN_TIME}"),
        20,
    ),
    _traces(
        "slow spans of a service, of ten days",
        _slow,
        _walk(f"{_OF_SERVICE} AND s.duration_us >= %(min_duration_us)s").replace(
            _NEWEST, f"AND t.duration_us >= %(min_duration_us)s - 1 {_NEWEST}"
        ),
        None,
    ),
    _traces("model, of a day", _model, _walk("s.model = %(model)s"), 20),
    _traces("model that is rarely called", _rare_model, _spans_first("s.model = %(model)s"), 20),
    _traces("user", _user, _spans_first("s.user_id = %(user_id)s"), 20),
    _traces("session", _session, _spans_first("s.session_id = %(session_id)s"), 20),
    _traces("rare attribute, of a closed day", _closed_order, _BY_ATTRIBUTES, 100),
    _in_open_day(
        "rare attribute, of the open day",
        _open_order,
        _WITH_ATTRIBUTES,
        "e.attributes @> %(attributes)s",
    ),
    _traces("prompt text, of a closed day", _closed_words, _HAVING_WORDS, 100),
    _in_open_day(
        "prompt text, of the open day", _open_words, _has_words("s"), _has_words("e"), _LETTERS
    ),
    _traces("common attribute, of a day", _region, _walk(_WITH_ATTRIBUTES), None),
)
