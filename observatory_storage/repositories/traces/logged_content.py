"""Finds the spans whose log records meet a condition by prompts and completions in log frames.

The same as `framed_content` for values of the spans themselves and of their events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.errors import translated
from observatory_storage.llm.content_search import content_of_log, is_message_log
from observatory_storage.llm.log_facts import LOGGED_AFTER, LOGGED_BEFORE
from observatory_storage.models import LogFrame, TraceSpan
from observatory_storage.payloads.frame_keys import hour_of
from observatory_storage.payloads.framed_rows import WholeLog, framed_logs
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.framed_words import FramedWords
from observatory_storage.repositories.reading.given_records import (
    GIVEN_RECORDS,
    GivenRecord,
    decide,
)
from observatory_storage.repositories.reading.searched_text import without_middles
from observatory_storage.repositories.reading.text_search import Run
from observatory_storage.repositories.traces.json_conditions import (
    ContentCondition,
    SpanKey,
    logged_between,
)

__all__ = ["LoggedContent"]

_HOURS_AT_ONCE: Final = 128
_HOUR: Final = timedelta(hours=1)
_SPAN: Final = [getattr(TraceSpan, name) for name in SpanKey._fields]
_NAMED: Final = (
    sa.func.unnest(
        sa.bindparam("trace_ids", type_=sa.ARRAY(TraceSpan.trace_id.type)),
        sa.bindparam("span_ids", type_=sa.ARRAY(sa.Text)),
        sa.bindparam("times", type_=sa.ARRAY(TraceSpan.start_time.type)),
    )
    .table_valued("trace_id", "span_id", "time")
    .render_derived(name="named")
)
_SPANS_OF: Final = sa.select(*_SPAN).join_from(
    _NAMED,
    TraceSpan,
    sa.and_(
        TraceSpan.trace_id == _NAMED.c.trace_id,
        TraceSpan.span_id == _NAMED.c.span_id,
        TraceSpan.start_time <= _NAMED.c.time + LOGGED_BEFORE,
        TraceSpan.start_time > _NAMED.c.time - LOGGED_AFTER,
    ),
)


class LoggedContent:
    """The spans that meet conditions on content by log records with frames.

    Args:
        start, end: the range of the starts of spans.
        conditions: by name.
        runs: the runs of letters and digits that a match has, by the name of the condition.
    """

    def __init__(
        self,
        connection: sa.Connection | Session,
        start: datetime | None,
        end: datetime | None,
        conditions: Mapping[str, ContentCondition],
        runs: Mapping[str, Sequence[Sequence[Run]]],
    ) -> None:
        self._connection = connection
        self._conditions, self._runs = conditions, runs
        self._range = logged_between(start, end)
        self._words = FramedWords(connection, *self._range)
        self._candidates: dict[str, set[HourKey] | None] = {}
        self._met: dict[str, dict[HourKey, list[SpanKey]]] = defaultdict(dict)

    def candidates(
        self, name: str, start: datetime | None, end: datetime | None
    ) -> set[HourKey] | None:
        """The hours of traces that may have records of spans which start in [start, end).

        Returns:
            None if a condition does not tell.
        """
        found = self._candidates_of(name)
        if found is None:
            return None
        first, last = logged_between(start, end)
        first = first and hour_of(first)
        return {key for key in found if _is_within(key.start_time, first, last)}

    def met(self, name: str, spans: Collection[HourKey] | None = None) -> list[SpanKey]:
        """The spans that meet a condition by their log records.

        Args:
            spans: the hours in which the spans start, by trace; None for all.
        """
        return self.met_by(name, self._hours(name, spans))

    def met_by(self, name: str, hours: Collection[HourKey]) -> list[SpanKey]:
        """The spans that meet a condition by log records of these hours of traces."""
        known = self._met[name]
        unknown = sorted(set(hours) - known.keys(), key=lambda key: key.start_time, reverse=True)
        runs = [[run.text.encode() for run in each if run.is_literal] for each in self._runs[name]]
        for first in range(0, len(unknown), _HOURS_AT_ONCE):
            some = unknown[first : first + _HOURS_AT_ONCE]
            known.update((key, []) for key in some)
            logs = framed_logs(self._connection, some, runs)
            named = [log for of_hour in logs.values() for log in of_hour if log.span_id is not None]
            for log, span in self._spans_of(self._meeting(name, named)):
                known[HourKey(log.trace_id, hour_of(log.timestamp))].append(span)
        return list(dict.fromkeys(key for hour in hours for key in known[hour]))

    def _candidates_of(self, name: str) -> set[HourKey] | None:
        if name not in self._candidates:
            runs = self._runs[name] if name == "text" else ()
            self._candidates[name] = self._words.candidates(runs) if runs else None
        return self._candidates[name]

    def _hours(self, name: str, spans: Collection[HourKey] | None) -> set[HourKey]:
        """The hours of the log records of spans."""
        candidates = self._candidates_of(name)
        if spans is None:
            return self._stored(*_within(*self._range)) if candidates is None else candidates
        if not spans:
            return set()
        of_traces: dict[Any, list[datetime]] = defaultdict(list)
        for span in spans:
            of_traces[span.trace_id].append(span.start_time)
        bounds = {
            trace: (
                hour_of(_shifted(min(starts), -LOGGED_BEFORE)),
                _shifted(max(starts), _HOUR + LOGGED_AFTER),
            )
            for trace, starts in of_traces.items()
        }
        if candidates is None:
            earliest = min(first for first, _ in bounds.values())
            latest = max(last for _, last in bounds.values())
            traces = sa.literal(list(bounds), sa.ARRAY(LogFrame.trace_id.type))
            is_of = LogFrame.trace_id == sa.func.any(traces)
            candidates = self._stored(is_of, *_within(earliest, latest))
        return {
            key
            for key in candidates
            if key.trace_id in bounds and _is_within(key.start_time, *bounds[key.trace_id])
        }

    def _stored(self, *conditions: sa.ColumnElement[bool]) -> set[HourKey]:
        frames = sa.select(LogFrame.trace_id, LogFrame.start_time).distinct().where(*conditions)
        with translated():
            rows = self._connection.execute(frames).all()
        return {HourKey(trace_id, hour_of(start)) for trace_id, start in rows}

    def _meeting(self, name: str, logs: Iterable[WholeLog]) -> Iterator[WholeLog]:
        condition = self._conditions[name].on(content_of_log(GIVEN_RECORDS))
        reports = is_message_log(GIVEN_RECORDS)
        given = ((log, _given(log, cut=name == "text")) for log in logs)
        structured = GIVEN_RECORDS.is_structured()
        for log, _ in decide(self._connection, given, structured, reports, condition):
            yield log

    def _spans_of(self, logs: Iterable[WholeLog]) -> Iterator[tuple[WholeLog, SpanKey]]:
        """The spans that log records name."""
        listed = list(logs)
        if not listed:
            return
        by_span: dict[Any, list[WholeLog]] = defaultdict(list)
        for log in listed:
            by_span[log.trace_id, log.span_id].append(log)
        times = [log.timestamp for log in listed]
        first, last = _shifted(min(times), -LOGGED_AFTER), _shifted(max(times), 2 * _HOUR)
        bounds = within(TraceSpan.start_time, first, last)
        values = {
            "trace_ids": [log.trace_id for log in listed],
            "span_ids": [log.span_id for log in listed],
            "times": times,
        }
        with translated():
            rows = self._connection.execute(_SPANS_OF.where(*bounds), values).all()
        for row in rows:
            span = SpanKey(*row)
            for log in by_span[span.trace_id, span.span_id]:
                if -LOGGED_BEFORE <= log.timestamp - span.start_time < LOGGED_AFTER:
                    yield log, span


def _given(log: WholeLog, *, cut: bool) -> GivenRecord:
    def text(value: bytes) -> str:
        return (without_middles(value) if cut else value).decode()

    body = None if log.body_json is None else text(log.body_json)
    return GivenRecord(log.event_name, log.body, text(log.attributes), body)


def _within(start: datetime | None, end: datetime | None) -> Conditions:
    return within(LogFrame.start_time, start and hour_of(start), end)


def _is_within(moment: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or moment >= start) and (end is None or moment < end)


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment
