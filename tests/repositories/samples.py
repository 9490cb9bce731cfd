"""Rows to ask about, and what the filters mean, said once more in plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.models import TraceSpan
from observatory_storage.repositories import (
    Exists,
    Not,
    OneOf,
    Page,
    Prefix,
    SpanFilters,
    TraceFilters,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)

Row = dict[str, Any]
T = TypeVar("T")


def trace_key(number: int) -> str:
    return f"{number:032x}"


def span_key(number: int) -> str:
    return f"{number:016x}"


def a_span(trace: int, number: int, start: datetime = START, **columns: Any) -> Row:
    return {
        "trace_id": trace_key(trace),
        "span_id": span_key(number),
        "name": "operation",
        "service_name": "service",
        "start_time": start,
        "end_time": start + SECOND,
        **columns,
    }


def an_event(name: str = "event", **attributes: Any) -> Row:
    return {"name": name, "timestamp": START, "attributes": attributes}


def a_log(number: int, timestamp: datetime = START, **columns: Any) -> Row:
    id_ = f"00000000-0000-0000-0000-{number:012x}"
    return {"id": id_, "timestamp": timestamp, "service_name": "service", **columns}


def many_spans(seed: int = 7, traces: int = 60) -> list[Row]:
    """Spans of several days, services and kinds, with ties in their starts."""
    rng = random.Random(seed)
    rows = []
    for trace in range(1, traces + 1):
        begins = START + rng.choice([0, 1, 1, 2]) * DAY + rng.randrange(20) * SECOND
        for number in range(rng.randrange(1, 6)):
            start = begins + rng.randrange(5) * SECOND
            start_ns, end_ns = rng.choice([0, 0, 250]), rng.choice([0, 999])
            tokens = rng.choice([None, 0, 10, 1000])
            pair = rng.choice([{}, {"k": 1}, {"k": 1.0}, {"k": "1"}, {"k": True}, {"a.b": "x%"}])
            place = rng.choice(["attributes", "resource_attributes", "scope_attributes"])
            linked = [{"trace_id": trace_key(1), "span_id": span_key(1), "attributes": pair}]
            row = a_span(
                trace,
                trace * 10 + number,
                start,
                start_ns=start_ns,
                end_time=start + rng.choice([1, 2, 2000]) * timedelta(microseconds=1),
                end_ns=end_ns,
                name=rng.choice(["chat", "search", "plan"]),
                kind=rng.choice(["internal", "client"]),
                service_name=rng.choice(["api", "worker"]),
                status=rng.choice(["unset", "ok", "error"]),
                provider=rng.choice([None, "openai", "local"]),
                model=rng.choice([None, "large", "small"]),
                user_id=rng.choice([None, "ann", "bob"]),
                session_id=rng.choice([None, "s1", "s2"]),
                environment=rng.choice([None, "test"]),
                operation=rng.choice([None, "chat", "execute_tool"]),
                response_model=rng.choice([None, "large-2026"]),
                agent_name=rng.choice([None, "planner"]),
                tool_name=rng.choice([None, "calculator"]),
                finish_reason=rng.choice([None, "stop", "length"]),
                error_type=rng.choice([None, "timeout"]),
                prompt_name=rng.choice([None, "greeting"]),
                total_tokens=tokens,
                total_cost_usd=None if tokens is None else Decimal(tokens) / 10000,
            )
            if number:
                row["parent_span_id"] = span_key(trace * 10)
            row[place] = pair
            if rng.random() < 0.2:
                row[place], row["links"] = {}, linked
            elif rng.random() < 0.2:
                row[place], row["events"] = {}, [an_event(), {**an_event(), "attributes": pair}]
            if rng.random() < 0.1:
                row["end_time"], row["end_ns"] = None, 0
            rows.append(row)
    return count_once(rows)


def count_once(rows: list[Row]) -> list[Row]:
    """The spans without the usage of roots above spans with usage, which does not count."""
    of_trace: dict[str, list[Row]] = {}
    for row in rows:
        of_trace.setdefault(row["trace_id"], []).append(row)
    for root, *others in of_trace.values():
        if any(row["total_tokens"] for row in others):
            root["total_tokens"] = root["total_cost_usd"] = None
    return rows


def nanoseconds(row: Row) -> int | None:
    """How long a span took."""
    if row["end_time"] is None:
        return None
    whole = (row["end_time"] - row["start_time"]) // timedelta(microseconds=1) * 1000
    return int(whole + row.get("end_ns", 0) - row.get("start_ns", 0))


def meets(row: Row, filters: TraceFilters | SpanFilters) -> bool:
    """Whether a span meets all the filters' conditions."""
    f, took = filters, nanoseconds(row)
    equal = {
        "service_name": f.service_name,
        "name": f.operation,
        "status": f.status,
        "provider": f.provider,
        "model": f.model,
        "user_id": f.user_id,
        "session_id": f.session_id,
        "environment": f.environment,
        "operation": f.gen_ai_operation,
        "response_model": f.response_model,
        "agent_name": f.agent_name,
        "tool_name": f.tool_name,
        "finish_reason": f.finish_reason,
        "error_type": f.error_type,
        "prompt_name": f.prompt_name,
    }
    tests: list[bool] = [fits(row.get(k), v) for k, v in equal.items() if v is not None]
    if f.start_time is not None:
        tests.append(row["start_time"] >= f.start_time)
    if f.end_time is not None:
        tests.append(row["start_time"] < f.end_time)
    if isinstance(f.min_duration_us, Decimal):
        tests.append(took is not None and took >= f.min_duration_us * 1000)
    if isinstance(f.max_duration_us, Decimal):
        tests.append(took is not None and took <= f.max_duration_us * 1000)
    if f.root is not None:
        tests.append((row.get("parent_span_id") is None) == f.root)
    if f.ended_after is not None:
        tests.append(row["end_time"] is not None and row["end_time"] >= f.ended_after)
    if f.ended_before is not None:
        tests.append(row["end_time"] is not None and row["end_time"] < f.ended_before)
    tests += [_has(row, key, value) for key, value in (f.attributes or {}).items()]
    if isinstance(f, SpanFilters):
        tests += [fits(row["kind"], f.kind)] if f.kind is not None else []
        tests += [fits(row["name"], f.name)] if f.name is not None else []
        if f.trace_id is not None:
            tests.append(fits(UUID(row["trace_id"]), f.trace_id))
    for column, least, greatest in (
        ("total_tokens", f.min_tokens, f.max_tokens),
        ("total_cost_usd", f.min_cost_usd, f.max_cost_usd),
    ):
        value = row.get(column)
        tests.append(least is None or (value is not None and value >= least))
        tests.append(greatest is None or (value is not None and value <= greatest))
    return all(tests)


def fits(stored: object, wanted: object) -> bool:
    """Whether a stored value, or None, is what a filter field wants."""
    match wanted:
        case Not(negated):
            return not fits(stored, negated)
        case OneOf(values):
            return any(fits(stored, value) for value in values)
        case Exists():
            return stored is not None
        case Prefix(text):
            return isinstance(stored, str) and stored.startswith(text)
        case _:
            return stored is not None and _same(stored, wanted)


def _has(row: Row, key: str, wanted: object) -> bool:
    if isinstance(wanted, Not):
        return not _has(row, key, wanted.value)
    places = [
        row.get("attributes", {}),
        row.get("resource_attributes", {}),
        row.get("scope_attributes", {}),
        *(link["attributes"] for link in row.get("links", ())),
        *(event["attributes"] for event in row.get("events", ())),
    ]
    return any(fits(place[key], wanted) for place in places if key in place)


def _same(one: object, other: object) -> bool:
    numbers = [isinstance(x, (int, float)) and not isinstance(x, bool) for x in (one, other)]
    return one == other and (all(numbers) or type(one) is type(other))


def matching_traces(rows: Iterable[Row], filters: TraceFilters) -> dict[str, list[Row]]:
    """The spans of each trace that matches: one span meets all, and none what is negated."""
    traces: dict[str, list[Row]] = {}
    for row in rows:
        traces.setdefault(row["trace_id"], []).append(row)
    wanted, refused = _without_negations(filters)
    return {
        key: spans
        for key, spans in traces.items()
        if any(meets(span, wanted) for span in spans)
        and not any(meets(span, each) for each in refused for span in spans)
    }


def _without_negations(filters: TraceFilters) -> tuple[TraceFilters, list[TraceFilters]]:
    """The filters without what is negated, and each of that as filters of its own."""
    given = {each.name: getattr(filters, each.name) for each in fields(filters)}
    pairs = dict(given.pop("attributes") or {})
    refused: list[Row] = [
        {key: given.pop(key).value} for key in [*given] if isinstance(given[key], Not)
    ]
    negated = [key for key in pairs if isinstance(pairs[key], Not)]
    refused += [{"attributes": {key: pairs.pop(key).value}} for key in negated]
    if given["root"] is False:
        del given["root"]
        refused.append({"root": True})
    wanted = TraceFilters(**given, attributes=pairs)
    return wanted, [TraceFilters(**each) for each in refused]


def newest_traces(rows: Iterable[Row], filters: TraceFilters) -> list[str]:
    """The ids of the traces that match, in the order of the list."""
    found = matching_traces(rows, filters)
    begins = {key: min(span["start_time"] for span in found[key]) for key in found}
    return sorted(found, key=lambda key: (begins[key], key), reverse=True)


def newest_spans(rows: Iterable[Row], filters: SpanFilters) -> list[tuple[str, str]]:
    """The keys of the spans that match, in the order of the list."""
    found = [row for row in rows if meets(row, filters)]
    found.sort(
        key=lambda r: (r["start_time"], r["start_ns"], r["trace_id"], r["span_id"]), reverse=True
    )
    return [(row["trace_id"], row["span_id"]) for row in found]


def keys(spans: Iterable[TraceSpan]) -> list[tuple[str, str]]:
    return [(span.trace_id.hex, span.span_id) for span in spans]


def forwards(page_at: Callable[..., Page[T]]) -> list[Page[T]]:
    """All pages from the first on."""
    pages = [page_at()]
    while pages[-1].next is not None:
        pages.append(page_at(after=pages[-1].next))
    return pages


def backwards(page_at: Callable[..., Page[T]], last: Page[T]) -> list[Page[T]]:
    """All pages before the last, in the list's order."""
    pages = [last]
    while pages[0].previous is not None:
        pages.insert(0, page_at(before=pages[0].previous))
    return pages


@contextmanager
def statements(engine: sa.Engine, *, of_catalog: bool = False) -> Iterator[list[str]]:
    """The statements that the engine runs in the block.

    Args:
        of_catalog: also the one that asks, once a minute, where partitions begin.
    """
    seen: list[str] = []

    def note(_c: Any, _k: Any, statement: str, *_rest: Any) -> None:
        if of_catalog or "pg_inherits" not in statement:
            seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def newest_records(rows: Iterator[Row]) -> list[str]:
    def key(row: Row) -> tuple[Any, ...]:
        return row["timestamp"], row.get("timestamp_ns", 0), row["id"]

    found = sorted(rows, key=key, reverse=True)
    return [row["id"] for row in found]


def ids_of(rows: Any) -> list[str]:
    return [str(row.id) for row in rows]
