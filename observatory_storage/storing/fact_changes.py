"""What the attributes and events of stored spans say today, compared with their LLM columns.

Spans are read in small parts, because their attributes and events may be large. Of these, only what
changes is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from observatory_storage.changed_spans import mark_changes
from observatory_storage.llm import Course, facts
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.payloads import fill_whole, log_damage
from observatory_storage.pricing import PriceTable, tier_of
from observatory_storage.rows import SUMS, total_of, with_error_message
from observatory_storage.storing.span_costs import (
    PricedCall,
    priced,
    without_computed_cost,
)
from observatory_storage.storing.stored_usage import usage_of
from observatory_storage.storing.usage_in_batch import REPORT, USAGE_FIELDS, reported_json
from observatory_storage.storing.usage_once import COMPUTED, Usage
from observatory_storage.tables import EVENTS, SPAN_KEY_OF_EVENT, SPANS, TableDefinition

__all__ = ["FactChange", "SpanKey", "changes_of", "update_facts"]

_Row = dict[str, Any]

_SPANS: Final = SPANS.table
_EVENTS: Final = EVENTS.table
_SPANS_AT_A_TIME: Final = 100
_DIGITS_OF_MS: Final = 6
_FACTS: Final = tuple(column for column in ALIASES if column not in USAGE_FIELDS)
_UPDATED: Final = (*_FACTS, *USAGE_FIELDS, *REPORT, "status_message")
# What a computed cost depends on, beside the start and the attributes of the span.
_PRICED: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "token_details")
_MODELS: Final = ("provider", "model", "response_model")


class SpanKey(NamedTuple):
    """The key of a span, in the order in which spans are read."""

    start_time: datetime
    start_ns: int
    trace_id: UUID
    span_id: str


class FactChange(NamedTuple):
    """A stored span whose columns are not what its attributes and events say.

    Attributes:
        key: the span.
        columns: the new values of all columns that a refresh may change.
        is_message_read: whether the message of the status comes from the attributes or events,
            while the sender's status has none.
        names_call: whether it names the response of a call whose usage it reports, before or after
            the change. Another trace may have a span of the same call.
    """

    key: SpanKey
    columns: dict[str, Any]
    is_message_read: bool
    names_call: bool


def changes_of(
    connection: Connection, keys: Sequence[SpanKey], prices: PriceTable | None = None
) -> Iterator[FactChange]:
    """Read these spans, and yield the changes of those that differ. Missing spans are skipped.

    Args:
        connection: a connection.
        keys: the spans.
        prices: the prices to compute costs with, where what they depend on has changed.
    """
    for start in range(0, len(keys), _SPANS_AT_A_TIME):
        part = keys[start : start + _SPANS_AT_A_TIME]
        given = _given(part)
        events: defaultdict[tuple[Any, ...], list[_Row]] = defaultdict(list)
        for event in _whole(connection, EVENTS, _READ_EVENTS, given):
            events[tuple(event[column] for column in SPAN_KEY_OF_EVENT)].append(event)
        for span in _whole(connection, SPANS, _READ_SPANS, given):
            of_span = events[tuple(span[column] for column in _KEY)]
            # Previews do not tell the facts: of what is not whole, what is stored stays.
            if any(row["payload_frame"] is not None for row in (span, *of_span)):
                continue
            change = _change(span, of_span, prices)
            if change is not None:
                yield change


def _whole(
    connection: Connection, table: TableDefinition, statement: Any, given: Mapping[str, Any]
) -> list[_Row]:
    """The rows of the statement, with whole attributes unless their frame is damaged."""
    rows = [dict(row) for row in connection.execute(statement, given).mappings()]
    log_damage(fill_whole(connection, table, rows))
    return rows


def _change(span: _Row, events: Sequence[_Row], prices: PriceTable | None) -> FactChange | None:
    found = facts(
        span["attributes"],
        name=span["name"],
        scope_name=span["scope_name"],
        resource_attributes=span["resource_attributes"],
        course=Course(span["start_time"], span["duration_us"], span["status"] == "error", events),
    )
    reported = span["reported_usage"]
    if reported is None:
        before = Usage(*(span[column] for column in USAGE_FIELDS))
    else:
        before = usage_of(reported, span["reported_cost_source"])
    told = without_computed_cost(before)
    stored = {**{column: span[column] for column in _FACTS}, **told._asdict()}
    found = {column: _with_all_digits(stored[column], value) for column, value in found.items()}
    columns = {column: span[column] for column in _UPDATED}
    columns |= {column: found[column] for column in _FACTS if column in found}
    usage = _with_source(_usage(told, found), told)
    if not usage.tells_cost:
        usage = _with_computed_cost(usage, before, span, columns, prices)
    with_message = with_error_message({**span, "events": events})
    columns["status_message"] = with_message["status_message"]
    if reported is None:
        columns |= usage._asdict()
    elif usage != before:
        columns["reported_usage"] = reported_json(usage)
        columns["reported_cost_source"] = usage.cost_source
    if all(value == span[column] for column, value in columns.items()):
        return None
    names = span["response_id"] is not None or columns["response_id"] is not None
    return FactChange(
        SpanKey(*(span[column] for column in SpanKey._fields)),
        columns,
        columns["status_message"] != span["status_message"],
        names and (before.is_reported or usage.is_reported),
    )


def _with_source(usage: Usage, before: Usage) -> Usage:
    """The usage with the source of its told cost. That of an earlier version is not noted."""
    if usage.total_cost_usd is None:
        return usage._replace(cost_source=None)
    known = usage.total_cost_usd == before.total_cost_usd
    return usage if known else usage._replace(cost_source="told")


def _with_computed_cost(
    usage: Usage,
    before: Usage,
    span: _Row,
    columns: Mapping[str, Any],
    prices: PriceTable | None,
) -> Usage:
    """The usage, which tells no cost, with the computed one.

    It is computed again only if what it depends on has changed: prices may have changed meanwhile.
    """
    if all(getattr(usage, name) == getattr(before, name) for name in _PRICED) and all(
        columns[name] == span[name] for name in _MODELS
    ):
        if before.cost_source != COMPUTED:
            return usage
        costs = (before.prompt_cost_usd, before.completion_cost_usd, before.total_cost_usd)
        return Usage(*usage[:3], *costs, usage.token_details, COMPUTED)
    provider, model, response_model = (columns[name] for name in _MODELS)
    tier, start = tier_of(span["attributes"]), span["start_time"]
    call = PricedCall(provider, model, response_model, tier, start)
    return priced(usage, call, prices)


def _with_all_digits(stored: Any, found: Any) -> Any:
    """The stored number, if it has only more digits than the one that was found.

    JSON of attributes has the digits of a double, and facts read from it may be rounded.
    """
    if type(stored) is type(found) is Decimal and float(stored) == float(found):
        return stored
    if type(stored) is type(found) is float and round(stored, _DIGITS_OF_MS) == found:
        return stored
    return found


def _usage(before: Usage, found: Mapping[str, Any]) -> Usage:
    """What a span reports: what its attributes say, and otherwise what is stored."""
    stored = before._asdict()
    usage = {column: found.get(column, value) for column, value in stored.items()}
    for columns, add in SUMS:
        told = [found.get(column) for column in columns]
        if told == [None] * len(columns):
            continue
        *sides, total = (stored[column] for column in columns)
        summed = total_of([None] * 3, [*sides, None], add)
        told_sum = total_of([None] * 3, [*told[:-1], None], add)
        if total is not None and total != summed and told[-1] == told_sum:
            # A total that was no sum was reported or given. The attributes tell another sum only.
            usage[columns[-1]] = total
            continue
        own = [None if new is not None else old for new, old in zip(told, sides, strict=False)]
        usage[columns[-1]] = total_of([*own, None], told, add)
    return Usage(**usage)


def update_facts(connection: Connection, changes: Sequence[FactChange]) -> None:
    """Update the spans. The rows of their traces must be locked.

    Where their usage counts is decided afterwards.
    """
    if not changes:
        return
    given = _given([change.key for change in changes])
    for column in _UPDATED:
        given[f"given_{column}"] = [change.columns[column] for change in changes]
    given["given_is_message_read"] = [change.is_message_read for change in changes]
    connection.execute(_UPDATE, given)
    mark_changes(connection, [change.key.start_time for change in changes])


def _given(keys: Sequence[SpanKey]) -> dict[str, Any]:
    """The parameters that choose these spans.

    Known in advance, the range of their starts prunes partitions when a statement is planned.
    """
    starts = [key.start_time for key in keys]
    return {
        "earliest": min(starts),
        "latest": max(starts),
        **{f"given_{name}": [getattr(key, name) for key in keys] for name in SpanKey._fields},
    }


_KEY: Final = ("trace_id", "span_id", "start_time", "start_ns")


def _unnested(columns: Mapping[str, Any], name: str) -> Any:
    """A table with a column for each array that is given."""
    arrays = (
        bindparam(f"given_{column}", type_=sa.ARRAY(kind)) for column, kind in columns.items()
    )
    names = (sa.column(column, kind) for column, kind in columns.items())
    return sa.func.unnest(*arrays).table_valued(*names).render_derived(name=name)


_KEY_TYPES: Final = {column: _SPANS.c[column].type for column in _KEY}


def _reading(table: sa.Table, key: Sequence[str], *others: str) -> Any:
    """The rows of these spans. `key` has the columns of their key, in the order of `_KEY`."""
    given = _unnested(_KEY_TYPES, "given")
    same = (table.c[column] == given.c[name] for column, name in zip(key, _KEY, strict=True))
    start = table.c[key[_KEY.index("start_time")]]
    return (
        sa.select(*(table.c[column] for column in (*key, *others)))
        .join_from(given, table, sa.and_(*same))
        .where(start.between(bindparam("earliest"), bindparam("latest")))
    )


_READ_SPANS: Final = _reading(
    _SPANS,
    _KEY,
    *("name", "scope_name", "duration_us", "status", "attributes", "resource_attributes", "otlp"),
    "payload_frame",
    *_UPDATED,
)
_READ_EVENTS: Final = _reading(
    _EVENTS, SPAN_KEY_OF_EVENT, "position", "name", "attributes", "timestamp", "payload_frame"
).order_by(_EVENTS.c.position)


def _updating() -> Any:
    spans = _SPANS.c
    kinds = {column: spans[column].type for column in _UPDATED}
    new = _unnested(_KEY_TYPES | kinds | {"is_message_read": sa.Boolean()}, "new").c
    # What `with_error_message` notes, added to the stored JSON in place: reading and writing it
    # again could change its numbers.
    json = spans.otlp.type
    nothing, message = (
        sa.cast(sa.literal(value, json), json) for value in ({}, {"status_message": None})
    )
    noted = sa.func.coalesce(spans.otlp, nothing).op("||")(message)
    return (
        sa.update(_SPANS)
        .where(*(spans[column] == new[column] for column in _KEY))
        .where(spans.start_time.between(bindparam("earliest"), bindparam("latest")))
        .values({column: new[column] for column in _UPDATED})
        .values(otlp=sa.case((new.is_message_read, noted), else_=spans.otlp))
    )


_UPDATE: Final = _updating()
