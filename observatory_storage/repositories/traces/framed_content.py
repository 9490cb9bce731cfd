"""Finds the spans whose prompts and completions in payload frames meet a condition.

PostgreSQL cannot look into a frame. So the frames that may meet the condition are read, and the
whole attributes of their rows are given to PostgreSQL, which applies the same expressions as to
attributes in rows. The result is the keys of the spans, with which the statements of a search
decide about spans with frames. Rows without frames are searched as always.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from observatory_storage.llm.content_search import (
    content_of_attributes,
    content_of_event,
)
from observatory_storage.models import TraceSpan
from observatory_storage.payloads.frame_keys import hour_of
from observatory_storage.payloads.framed_rows import WholeRow, framed_rows
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.repositories.reading.framed_words import FramedWords
from observatory_storage.repositories.reading.searched_text import LONG, without_middles
from observatory_storage.repositories.reading.text_search import Run, TextSearch, longest_run
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.json_conditions import (
    ContentCondition,
    SpanKey,
    logged_between,
)
from observatory_storage.repositories.traces.logged_content import LoggedContent
from observatory_storage.repositories.traces.span_conditions import SpanConditions

__all__ = ["FramedContent", "hours_of"]

# A match has all runs of one of the lists.
_Runs = Sequence[Sequence[Run]]

# With more candidates, reading the spans in order meets enough matches soon.
_MOST_HOURS: Final = 1_000
# What is in memory at a time: the frames of these hours, and the rows that are given to PostgreSQL.
_HOURS_AT_ONCE: Final = 128
_ROWS_AT_ONCE: Final = 200
_MOST_BYTES: Final = 4_000_000

_GIVEN: Final = (
    sa.func.unnest(
        sa.bindparam("event_names", type_=sa.ARRAY(sa.Text)),
        sa.bindparam("attributes", type_=sa.ARRAY(sa.Text)),
    )
    .table_valued("event_name", "attributes", with_ordinality="number")
    .render_derived(name="given")
)
# OFFSET keeps PostgreSQL from parsing the attributes for each expression.
_ROW: Final = (
    sa.select(
        _GIVEN.c.number,
        _GIVEN.c.event_name,
        sa.cast(_GIVEN.c.attributes, JSONB).label("attributes"),
    )
    .offset(sa.literal_column("'0'"))
    .subquery("row")
)
_OF_SPAN: Final = content_of_attributes(_ROW.c.attributes)
_OF_EVENT: Final = content_of_event(_ROW.c.event_name, _ROW.c.attributes)


class FramedContent:
    """The spans that meet conditions of filters on content by values in frames.

    It remembers what it has read, so it is made anew for each page.

    Args:
        filters: what they say of the time range is respected.
    """

    def __init__(
        self, connection: sa.Connection | Session, filters: SpanFilters | TraceFilters
    ) -> None:
        self._connection = connection
        bounds = filters.start_time, filters.end_time
        self._words = FramedWords(connection, *bounds, logged_between(*bounds))
        json = filters.in_sql().json() if filters.searches_content() else ()
        self._conditions = {one.name: one for one in json if isinstance(one, ContentCondition)}
        self._runs = _required_runs(filters)
        self._logged = LoggedContent(connection, *bounds, self._conditions, self._runs)
        self._candidates: dict[str, set[HourKey] | None] = {}
        self._met: dict[str, dict[HourKey, list[SpanKey]]] = defaultdict(dict)

    @cached_property
    def is_any(self) -> bool:
        """Whether there are conditions on content, and may be frames in the range."""
        return bool(self._conditions) and (self._words.is_any or self._words.has_log_frames)

    def few(self, name: str, start: datetime | None, end: datetime | None) -> list[SpanKey] | None:
        """The spans that start in [start, end) and meet a condition by frames.

        Args:
            name: that of the condition.

        Returns:
            None if too many frames would have to be read.
        """
        candidates = self._candidates_of(name)
        if candidates is None:
            return None
        first = None if start is None else hour_of(start)
        hours = {key for key in candidates if _is_within(key.start_time, first, end)}
        if len(hours) > _MOST_HOURS:
            return None
        met = self._met_by_frames(name, hours)
        if self._words.has_log_frames:
            logged = self._logged.candidates(name, start, end)
            if logged is None or len(hours) + len(logged) > _MOST_HOURS:
                return None
            met = list(dict.fromkeys([*met, *self._logged.met_by(name, logged)]))
        return [key for key in met if _is_within(key.start_time, start, end)]

    def met(self, name: str, hours: Collection[HourKey] | None = None) -> list[SpanKey]:
        """The spans of these hours of traces, or of all, that meet a condition by frames.

        There may be spans of other hours among them.
        """
        by_frames = self._met_by_frames(name, hours)
        if not self._words.has_log_frames:
            return by_frames
        return list(dict.fromkeys([*by_frames, *self._logged.met(name, hours)]))

    def _met_by_frames(self, name: str, hours: Collection[HourKey] | None = None) -> list[SpanKey]:
        """Those that meet it by their own values, or by those of their events."""
        candidates = self._candidates_of(name)
        if hours is None:
            hours = self._words.all() if candidates is None else candidates
        elif candidates is not None:
            hours = candidates.intersection(hours)
        known = self._met[name]
        unknown = sorted(set(hours) - known.keys(), key=lambda key: key.start_time, reverse=True)
        for start in range(0, len(unknown), _HOURS_AT_ONCE):
            some = unknown[start : start + _HOURS_AT_ONCE]
            known.update((key, []) for key in some)
            rows = framed_rows(self._connection, some, _literal(self._runs[name]))
            for row in self._meeting(
                self._conditions[name], (row for of_hour in rows.values() for row in of_hour)
            ):
                known[HourKey(row.trace_id, hour_of(row.start_time))].append(_key_of(row))
        return list(dict.fromkeys(key for hour in hours for key in known[hour]))

    def resolved(
        self, conditions: SpanConditions, hours: Collection[HourKey] | None = None
    ) -> SpanConditions:
        """The conditions with the spans of these hours of traces, or of all, that meet them."""
        if not self.is_any:
            return conditions
        return conditions.with_framed({name: self.met(name, hours) for name in self._conditions})

    def inline(self, conditions: SpanConditions) -> SpanConditions:
        """The conditions, which rows with frames do not meet by their previews."""
        if not self.is_any:
            return conditions
        return conditions.with_framed(dict.fromkeys(self._conditions, ()))

    def is_rare(self) -> bool:
        """Whether few frames have to be read to know all spans that meet the conditions."""
        each = [self._candidates_of(name) for name in self._conditions]
        if self._words.has_log_frames:
            each += [self._logged.candidates(name, None, None) for name in self._conditions]
        return all(found is not None and len(found) <= _MOST_HOURS for found in each)

    def of_spans(self, *conditions: sa.ColumnElement[bool]) -> set[HourKey]:
        """The hours of traces of the spans that meet conditions on their columns."""
        spans = sa.select(TraceSpan.trace_id, TraceSpan.start_time).where(*conditions)
        return hours_of(self._connection.execute(spans))

    def _candidates_of(self, name: str) -> set[HourKey] | None:
        if name not in self._candidates:
            # What is contained may stand within words, which the index does not know.
            runs = self._runs[name] if name == "text" else ()
            self._candidates[name] = self._words.candidates(runs) if runs else None
        return self._candidates[name]

    def _meeting(self, condition: ContentCondition, rows: Iterable[WholeRow]) -> Iterator[WholeRow]:
        """The rows that meet the condition."""
        batch: list[WholeRow] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += sum(min(len(value), LONG) for value in row.content.values())
            if len(batch) >= _ROWS_AT_ONCE or size > _MOST_BYTES:
                yield from self._decided(condition, batch)
                batch, size = [], 0
        yield from self._decided(condition, batch)

    def _decided(self, condition: ContentCondition, rows: Sequence[WholeRow]) -> Iterator[WholeRow]:
        of_spans = [row for row in rows if row.event_name is None]
        of_events = [row for row in rows if row.event_name is not None]
        for same, content in ((of_spans, _OF_SPAN), (of_events, _OF_EVENT)):
            if same:
                is_for_words = condition.name == "text"
                values = {
                    "event_names": [row.event_name for row in same],
                    "attributes": [_as_json(row.content, cut=is_for_words) for row in same],
                }
                statement = sa.select(_ROW.c.number).where(condition.on(content))
                numbers = self._connection.scalars(statement, values)
                yield from (same[number - 1] for number in numbers)


def hours_of(spans: Iterable[Any]) -> set[HourKey]:
    """The hours of traces of rows with the trace id and the start of a span."""
    return {HourKey(row.trace_id, hour_of(row.start_time)) for row in spans}


def _is_within(moment: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or moment >= start) and (end is None or moment < end)


def _key_of(row: WholeRow) -> SpanKey:
    return SpanKey(row.trace_id, row.span_id, row.start_time, row.start_ns)


def _required_runs(filters: SpanFilters | TraceFilters) -> dict[str, _Runs]:
    """The letters and digits that matching content has, by the names of the conditions."""
    found: dict[str, _Runs] = {}
    if filters.text is not None:
        found["text"] = TextSearch(filters.text).required_runs()
    if filters.contains is not None:
        run = longest_run(filters.contains)
        found["contains"] = [[Run(run.lower())] if run else []]
    return found


def _literal(alternatives: _Runs) -> list[list[bytes]]:
    """Lists of ASCII letters and digits: JSON text of matching content has all of one of them.

    JSON never escapes ASCII letters and digits.
    """
    return [[run.text.encode() for run in runs if run.is_literal] for runs in alternatives]


def _as_json(attributes: Mapping[str, bytes], *, cut: bool) -> str:
    """The attributes as a JSON object.

    Args:
        cut: leave out what a search for words does not reach.
    """
    pairs = (
        orjson.dumps(key) + b":" + (without_middles(value) if cut else value)
        for key, value in attributes.items()
    )
    return (b"{" + b",".join(pairs) + b"}").decode()
