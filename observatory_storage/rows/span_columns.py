"""Spans prepared column by column, with the columns that are computed from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.llm import Courses, facts_by_column
from observatory_storage.rows.column_checks import Column, NotColumnar, columns_of, in_order
from observatory_storage.rows.column_rows import NO_ATTRIBUTES, complete, made, name_services
from observatory_storage.rows.consistent_sampling import head_weights
from observatory_storage.rows.prepare_span import (
    SUMS,
    USAGE,
    encoded_details,
    end_of,
    events_of,
    source_of_cost,
    total_of,
)
from observatory_storage.rows.row import Row
from observatory_storage.rows.table_checks import CHECKS
from observatory_storage.tables import SPANS
from observatory_storage.times import MICROSECOND

__all__ = ["prepare_span_columns", "span_rows"]


def span_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Spans ready to write, from mappings.

    Raises:
        NotColumnar: some have to be prepared one by one.
    """
    columns = columns_of(CHECKS[SPANS.name], rows)
    if with_reports := [at for at, own in enumerate(columns.get("reported_usage", ())) if own]:
        raise NotColumnar(with_reports)
    name_services(columns, rows)
    trace_ids = [row["trace_id"] for row in rows]
    texts = {trace_id: ids.trace_text(trace_id) for trace_id in set(trace_ids)}
    return _completed_spans(
        columns,
        [row.get("attributes") or NO_ATTRIBUTES for row in rows],
        [row.get("resource_attributes") or NO_ATTRIBUTES for row in rows],
        [row.get("events") for row in rows],
        [texts[trace_id] for trace_id in trace_ids],
    )


def prepare_span_columns(
    columns: dict[str, Column],
    attributes: Sequence[Mapping[str, Any]],
    resource_attributes: Sequence[Mapping[str, Any]],
) -> list[Row]:
    """Spans without events, ready to write, from columns whose values are checked already.

    Args:
        columns: the columns, with JSON encoded. No span ends before it starts. Trace ids are UUIDs
            that were given in hex.
        attributes: the attributes of each span.
        resource_attributes: those of its resource; one object for all spans that share it.
    """
    texts = [trace_id.hex for trace_id in columns["trace_id"]]
    events = [()] * len(texts)
    return list(_completed_spans(columns, attributes, resource_attributes, events, texts))


def _completed_spans(
    columns: dict[str, Column],
    attributes: Sequence[Mapping[str, Any]],
    resource_attributes: Sequence[Mapping[str, Any]],
    events: list[Any],
    trace_texts: Sequence[str],
) -> Iterator[Row]:
    """Spans with the columns that are computed from others, and with their events."""
    count = len(attributes)
    _add_durations(columns)
    found = facts_by_column(
        attributes,
        names=columns["name"],
        scope_names=columns.get("scope_name") or [None] * count,
        resource_attributes=resource_attributes,
        courses=Courses(
            columns["start_time"], columns.get("duration_us"), columns.get("status"), events
        ),
    )
    if "token_details" in found:
        found["token_details"] = list(map(encoded_details, found["token_details"]))
    if not USAGE.isdisjoint(columns):
        _add_own_totals(columns, found, count)
    for column, values in found.items():
        complete(columns, column, values)
    _add_cost_sources(columns, count)
    if (otlp := columns.get("otlp")) is not None:
        weights = head_weights(otlp, columns["trace_id"])
        if weights is not None:
            complete(columns, "sample_weight", weights)
    spans = list(zip(*in_order(CHECKS[SPANS.name], columns, count), strict=True))
    odd = []
    for index in [index for index, given in enumerate(events) if given is not None]:
        try:
            events[index], repairs = (
                events_of(events[index], spans[index]) if events[index] else ((), 0)
            )
        except ValidationError:
            repairs = 1
        if repairs:
            odd.append(index)
    if odd:
        raise NotColumnar(odd)
    return made(zip(repeat(SPANS.name), spans, events, trace_texts, repeat(0), repeat(None)))


def _add_own_totals(columns: Mapping[str, Column], found: dict[str, Column], count: int) -> None:
    """The totals of spans some of which give usage, in place of those of their attributes."""
    nothing = [None] * count
    for names, add in SUMS:
        is_total_missing = None in columns.get(names[-1], nothing)
        if is_total_missing and not columns.keys().isdisjoint(names):
            own = zip(*(columns.get(name, nothing) for name in names), strict=True)
            of_attributes = zip(*(found.get(name, nothing) for name in names), strict=True)
            found[names[-1]] = list(map(total_of, own, of_attributes, repeat(add)))


def _add_cost_sources(columns: dict[str, Column], count: int) -> None:
    """Where the costs of spans come from."""
    columns.pop("reported_cost_source", None)
    given = columns.pop("cost_source", None)
    costs = columns.get("total_cost_usd")
    if costs is not None:
        sources = given or [None] * count
        columns["cost_source"] = list(map(source_of_cost, costs, sources))


def _add_durations(columns: dict[str, Column]) -> None:
    """From start to end: the microseconds, and the nanoseconds beyond them."""
    starts = columns["start_time"]
    nothing = [None] * len(starts)
    if "duration_us" in columns:
        _add_ends(columns, nothing)
    if "end_time" not in columns:
        return
    gaps = [
        None if end is None else (end - start) // MICROSECOND
        for end, start in zip(columns["end_time"], starts, strict=True)
    ]
    if not columns.keys().isdisjoint(("start_ns", "end_ns", "duration_ns")):
        exact = [
            None if gap is None else gap * 1000 + (end or 0) - (start or 0)
            for gap, end, start in zip(
                gaps,
                columns.get("end_ns", nothing),
                columns.get("start_ns", nothing),
                strict=True,
            )
        ]
        gaps = [None if gap is None else gap // 1000 for gap in exact]
        columns["duration_ns"] = [
            own if gap is None else gap % 1000
            for own, gap in zip(columns.get("duration_ns", nothing), exact, strict=True)
        ]
    if min((gap for gap in gaps if gap is not None), default=0) < 0:
        raise NotColumnar(index for index, gap in enumerate(gaps) if gap is not None and gap < 0)
    columns["duration_us"] = gaps


def _add_ends(columns: dict[str, Column], nothing: Column) -> None:
    """The ends of spans that give how long they took instead."""
    ends = columns["end_time"] = list(columns.get("end_time", nothing))
    took = columns["duration_us"]
    missing = [i for i, end in enumerate(ends) if end is None and took[i] is not None]
    if not missing:
        return
    fractions = columns["end_ns"] = list(columns.get("end_ns", nothing))
    starts, start_ns = columns["start_time"], columns.get("start_ns", nothing)
    took_ns = columns.get("duration_ns", nothing)
    for index in missing:
        ends[index], fractions[index] = end_of(
            starts[index], start_ns[index] or 0, took[index], took_ns[index] or 0
        )
