"""Fills columns of spans that are NULL with facts that only log records tell.

Log records fill the spans that are there when they are written. The spans that come later are
filled by a settlement, from the stored records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from observatory_storage import jsonb
from observatory_storage.changed_spans import mark_changes
from observatory_storage.distribution import is_sharded
from observatory_storage.llm.log_facts import (
    LOGGED_AFTER,
    LOGGED_BEFORE,
    LOGGED_FACTS,
    facts_of_log,
    names_of_logged_facts,
    tells_facts,
)
from observatory_storage.rows import Row
from observatory_storage.storing.stored_usage import decide_traces
from observatory_storage.storing.trace_upsert import TraceSummary, locked_traces
from observatory_storage.tables import LOGS, SPANS, TRACES

__all__ = ["LoggedFacts", "fill_from_logs", "fill_from_stored_logs", "logged_facts"]

_SPANS: Final = SPANS.table
_LOGS: Final = LOGS.table
_TRACES: Final = TRACES.table
# In the order in which all writers lock spans.
_KEY: Final = ("start_time", "start_ns", "trace_id", "span_id")
_EVENT_NAME, _TRACE_ID, _SPAN_ID, _TIME, _ATTRIBUTES = LOGS.positions(
    "event_name", "trace_id", "span_id", "timestamp", "attributes"
)
_RECORDS_AT_A_TIME: Final = 1000


class LoggedFacts(NamedTuple):
    """What a log record tells of its span."""

    trace_id: UUID
    span_id: str
    timestamp: datetime
    user_id: str | None
    session_id: str | None


def logged_facts(rows: Iterable[Row]) -> list[LoggedFacts]:
    """What these prepared log records tell of their spans."""
    found = []
    for row in rows:
        values = row[1]  # by position: this runs for every log record
        name = values[_EVENT_NAME]
        if name is None or values[_TRACE_ID] is None or values[_SPAN_ID] is None:
            continue
        if tells_facts(name):
            facts = facts_of_log(jsonb.loads(values[_ATTRIBUTES][1:]))
            if facts:
                key = values[_TRACE_ID], values[_SPAN_ID], values[_TIME]
                found.append(LoggedFacts(*key, *map(facts.get, LOGGED_FACTS)))
    return found


def fill_from_logs(connection: Connection, told: Sequence[LoggedFacts]) -> None:
    """Fill the stored spans of log records that this transaction has written.

    Whoever changes spans has locked the rows of their traces, in the order of their ids. Where
    usage counts is decided anew, since it depends on which span tells the most.
    """
    lacking = _lacking(connection, told)
    if not lacking:
        return
    traces = locked_traces(connection, {row.trace_id for row in lacking})
    _fill(connection, lacking)
    decide_traces(connection, [trace for trace in traces if trace.usage_span_count > 1])


def fill_from_stored_logs(connection: Connection, traces: Iterable[TraceSummary]) -> None:
    """Fill the spans of traces, whose rows must be locked, from their stored log records."""
    wanted = [trace for trace in traces if trace.span_count]
    if not wanted:
        return
    given = {
        "ids": [trace.id for trace in wanted],
        "names": names_of_logged_facts(),
        "earliest": _shifted(min(trace.start_time for trace in wanted), -LOGGED_BEFORE),
        "latest": _shifted(max(trace.last_span_start for trace in wanted), LOGGED_AFTER),
    }
    told = []
    for row in connection.execute(_READ_LOGS, given):
        facts = facts_of_log(row.facts) if tells_facts(row.event_name) else {}
        if facts:
            key = row.trace_id, row.span_id, row.timestamp
            told.append(LoggedFacts(*key, *map(facts.get, LOGGED_FACTS)))
    _fill(connection, _lacking(connection, told))


def _shifted(time: datetime, by: timedelta) -> datetime:
    try:
        return time + by
    except OverflowError:
        return time


def _lacking(connection: Connection, told: Sequence[LoggedFacts]) -> list[sa.Row[Any]]:
    """The keys of stored spans that lack what is told of them, with what they lack."""
    ordered = sorted(told, key=lambda facts: facts.timestamp)
    found: list[sa.Row[Any]] = []
    for start in range(0, len(ordered), _RECORDS_AT_A_TIME):
        part = ordered[start : start + _RECORDS_AT_A_TIME]
        columns = zip(LoggedFacts._fields, zip(*part, strict=True), strict=True)
        given: dict[str, Any] = {name: list(values) for name, values in columns}
        given["earliest"] = _shifted(part[0].timestamp, -LOGGED_AFTER)
        given["latest"] = _shifted(part[-1].timestamp, LOGGED_BEFORE)
        finding = _LACKING_ON_SHARDS if is_sharded(connection) else _LACKING
        found += connection.execute(finding, given)
    return found


def _fill(connection: Connection, lacking: Iterable[sa.Row[Any]]) -> None:
    # Of several records the earliest fills the span: it comes first, and sorting keeps that.
    ordered = sorted(lacking, key=lambda row: (*row[:2], row.trace_id.int, row.span_id))
    if ordered:
        connection.execute(
            _FILL, [{f"of_{k}": v for k, v in row._mapping.items()} for row in ordered]
        )
        mark_changes(connection, [row.start_time for row in ordered])


def _finding_lacking(*, is_sharded: bool) -> Any:
    spans, records = _SPANS.c, _LOGS.c
    types = {
        "trace_id": records.trace_id.type,
        "span_id": sa.Text(),
        "timestamp": records.timestamp.type,
        **dict.fromkeys(LOGGED_FACTS, sa.Text()),
    }
    told = (
        sa.func.unnest(*(bindparam(name, type_=sa.ARRAY(kind)) for name, kind in types.items()))
        .table_valued(*(sa.column(name, kind) for name, kind in types.items()))
        .render_derived(name="told")
    )
    lacks = (spans[name].is_(None) & told.c[name].is_not(None) for name in LOGGED_FACTS)
    of_told = sa.and_(
        spans.trace_id == told.c.trace_id,
        spans.span_id == told.c.span_id,
        spans.start_time <= told.c.timestamp + LOGGED_BEFORE,
        spans.start_time > told.c.timestamp - LOGGED_AFTER,
        # Known in advance, these bounds prune partitions when the statement is planned.
        spans.start_time.between(bindparam("earliest"), bindparam("latest")),
        sa.or_(*lacks),
    )
    facts = [told.c[name] for name in LOGGED_FACTS]
    if is_sharded:  # Citus has no lateral join with an OFFSET
        joined = told.join(_SPANS, of_told)
        keys = (spans[name] for name in _KEY)
        return sa.select(*keys, *facts).select_from(joined).order_by(told.c.timestamp)
    span = (
        sa.select(*(spans[name] for name in _KEY))
        .where(of_told)
        # Keeps the planner from reading all spans for a join.
        .offset(sa.literal_column("0"))
        .lateral("span")
    )
    joined = told.join(span, sa.true())
    return sa.select(*span.c, *facts).select_from(joined).order_by(told.c.timestamp)


_LACKING: Final = _finding_lacking(is_sharded=False)
_LACKING_ON_SHARDS: Final = _finding_lacking(is_sharded=True)
_ids: Final = bindparam("ids", type_=sa.ARRAY(_TRACES.c.id.type))
_FILL: Final = (
    sa.update(_SPANS)
    .where(*(_SPANS.c[name] == bindparam(f"of_{name}") for name in _KEY))
    .values(
        {
            name: sa.func.coalesce(_SPANS.c[name], bindparam(f"of_{name}", type_=sa.Text()))
            for name in LOGGED_FACTS
        }
    )
)


def _reading_logs() -> Any:
    records = _LOGS.c
    each = sa.func.jsonb_each(records.attributes).table_valued("key", "value").lateral("each")
    names = bindparam("names", type_=sa.ARRAY(sa.Text()))
    # The other attributes may be whole conversations.
    facts = (
        sa.select(sa.func.jsonb_object_agg(each.c.key, each.c.value, type_=records.attributes.type))
        .where(each.c.key == sa.func.any(names))
        .scalar_subquery()
    )
    return sa.select(
        *(records.trace_id, records.span_id, records.timestamp, records.event_name),
        facts.label("facts"),
    ).where(
        records.trace_id == sa.func.any(_ids),
        records.span_id.is_not(None),
        records.event_name.is_not(None),
        records.attributes.op("?|", is_comparison=True)(names),
        records.timestamp.between(bindparam("earliest"), bindparam("latest")),
    )


_READ_LOGS: Final = _reading_logs()
