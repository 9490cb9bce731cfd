"""Sessions (conversations): a session consists of the traces that have a span with its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from observatory_storage.errors import NotFound
from observatory_storage.models import SessionRollupDay, TraceSpan, UserRollupDay
from observatory_storage.repositories.reading.page_rates import PageRate
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.partition_slices import Cuts, cuts_of
from observatory_storage.repositories.reading.partitioned_search import cuts_of_page
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.span_days import Range, days_with, days_with_any
from observatory_storage.repositories.reading.time_slices import moment_after
from observatory_storage.repositories.traces import session_statements as statements
from observatory_storage.repositories.traces.results import SessionSummary
from observatory_storage.repositories.traces.session_filters import SessionFilters

__all__ = ["SessionSearch", "session_by_id"]

# Up to this many matching spans are grouped into sessions and sorted. If there are more, reading
# them backwards in time finds enough sessions soon.
_FEW_SPANS: Final = 20_000
# The newest spans are read first: 8 for each session of the page, then 64 if the first ones belong
# to too few sessions, but never more than `_MOST_SPANS` in all. With many partitions, the number
# depends on the spans that sessions have, and begins between these two.
_SPANS_A_SESSION: Final = (8, 64)
_MOST_SPANS: Final = 20_000
_UNITS: Final = ("partitions of sessions", "spans of sessions")
# The next statement reads at most so many times the spans, and some more than the sessions found so
# far suggest.
_GROWTH: Final = 8
_MARGIN: Final = 1.25
# The days of up to this many sessions of a user are looked up.
_MOST_SESSIONS: Final = 200
# A user with spans on so few days has few sessions.
_FEW_DAYS: Final = timedelta(days=16)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class SessionSearch:
    """The matching sessions, most recently active first: a `pages.Search`."""

    keyset: Keyset = statements.SESSIONS

    def __init__(self, reader: Reader, filters: SessionFilters) -> None:
        self._reader = reader
        self._filters = filters
        self.query: Mapping[str, Any] = filters.query()
        self._parameters = filters.parameters()
        self._names = frozenset(self._parameters)

    def count(self, kind: Total) -> int:
        statement = statements.matching_sessions(self._names)
        return self._reader.count(statement, kind, self._parameters)

    def rows(self, seek: Seek) -> Sequence[SessionSummary]:
        """The sessions of a page, found in one of three ways.

        The first page is read from the newest spans, if these belong to enough sessions. Otherwise,
        if an index finds few matching spans, all of them are grouped. If not, spans are read
        backwards in time.

        If spans have many partitions, the ids of the sessions are read first, from the newest spans
        or from those of a user. Rollups tell on which days the sessions have spans.
        """
        records = None
        if not self._cuts(seek).is_one:
            records = self._near(seek)
        if records is None:
            records = self._from_newest_spans(seek) or self._found(seek)
        return [_summary(record) for record in records]

    def _near(self, seek: Seek) -> list[dict[str, Any]] | None:
        """The page, searched in few of many partitions; None if that does not decide it."""
        days = None
        if self._filters.has_conditions():
            days = days_with_any(self._reader, UserRollupDay.user_id, self._filters.user_id)
        if days is None:
            return self._of_newest(seek)
        if sum((end - start for start, end in days), timedelta(0)) <= _FEW_DAYS:
            return self._of_user(seek, days)
        records = self._of_newest(seek)
        return self._of_user(seek, days) if records is None else records

    def _of_newest(self, seek: Seek) -> list[dict[str, Any]] | None:
        """The page; None if the newest spans before it do not decide it."""
        if not seek.descending:
            return None
        cuts = self._cuts(seek)
        partitions, spans = (PageRate(self._reader, (unit, self._names)) for unit in _UNITS)
        cuts.expect(partitions.expected(seek.row_limit))
        rows: list[dict[str, Any]] = []
        least, most = (number * seek.row_limit for number in _SPANS_A_SESSION)
        span_limit = max(least, min(spans.expected(seek.row_limit), most, _MOST_SPANS))
        may_be_rare = self._filters.has_conditions()
        most_spans = min(most, _MOST_SPANS) if may_be_rare else _MOST_SPANS
        # Without a key and conditions, the newest spans tell when each session was last active.
        is_in_order = seek.key is None and not may_be_rare
        since = cuts.next()
        while span_limit <= most_spans:
            newest = statements.newest_sessions(
                self._names, is_bounded=since is not None, from_key=seek.key is not None
            )
            values = {**self._values(seek), "span_limit": span_limit, "since": since}
            sessions = self._reader.rows(newest, values)
            seen = sessions[0].seen if sessions else 0
            spans.note(seen, len(sessions))
            is_whole = seen < span_limit
            # All sessions that were last active since then are among the found ones.
            active_since = since or _EARLIEST
            if not is_whole:
                active_since = moment_after(sessions[0].oldest) or _LATEST
            if is_in_order:
                sessions = [row for row in sessions if row.last_start_time >= active_since]
                sessions = sessions[: seek.row_limit]
            ids = [row.session_id for row in sessions]
            is_last = is_whole and since is None
            if is_last or len(ids) >= seek.row_limit:
                rows = self._from_sessions(seek, ids, None if is_in_order else active_since)
                if len(rows) == seek.row_limit:
                    partitions.note(cuts.down_to(rows[-1]["last_start_time"]), len(rows))
                if is_last or len(rows) == seek.row_limit:
                    return rows
            if is_whole:
                since = cuts.next(len(rows or ids), seek.row_limit)
                if may_be_rare and (since is None or not rows):
                    return None
            elif span_limit == most_spans:
                return None
            else:
                wanted = int(seen * seek.row_limit / (len(rows or ids) or 1) * _MARGIN)
                grown = max(2 * span_limit, min(wanted, _GROWTH * span_limit))
                span_limit = min(grown, most_spans)
        return None

    def _from_sessions(
        self, seek: Seek, ids: list[str], active_since: datetime | None
    ) -> list[dict[str, Any]]:
        """The page, among sessions that were active since then; None if it has all of them."""
        if not ids:
            return []
        days = _hashable(days_with(self._reader, SessionRollupDay.session_id, ids))
        if active_since is None:
            statement = statements.by_ids(self._names, days)
        else:
            statement = statements.from_sessions(self._names, seek.shape, days)
        values = {**self._values(seek), "ids": ids, "active_since": active_since}
        return self._reader.records(statement, values)

    def _of_user(self, seek: Seek, days: Sequence[Range]) -> list[dict[str, Any]] | None:
        """The page, from the user's spans on these days; None if there are many sessions."""
        matching = statements.matching_sessions(self._names, tuple(days))
        few = matching.limit(_MOST_SESSIONS + 1)
        ids = [row.session_id for row in self._reader.rows(few, self._parameters)]
        if not ids or len(ids) > _MOST_SESSIONS:
            return None if ids else []
        return self._from_sessions(seek, ids, _EARLIEST)

    def _cuts(self, seek: Seek) -> Cuts:
        bounds = self._filters.start_time, self._filters.end_time
        return cuts_of_page(self._reader, TraceSpan.start_time, bounds, seek)

    def _from_newest_spans(self, seek: Seek) -> list[dict[str, Any]]:
        if seek.key is not None or self._filters.has_conditions():
            return []
        statement = statements.from_newest_spans(self._names, seek.shape)
        for spans in _SPANS_A_SESSION:
            span_limit = spans * seek.row_limit
            if span_limit > _MOST_SPANS:
                break
            rows = self._reader.records(statement, {**self._values(seek), "span_limit": span_limit})
            if rows:
                return rows
        return []

    def _found(self, seek: Seek) -> list[dict[str, Any]]:
        # A session's spans are on several shards, so none tells which of them is the last.
        few = self._reader.is_sharded or (self._filters.is_indexed() and self._are_few())
        make = statements.from_all_spans if few else statements.from_walked_spans
        return self._reader.records(make(self._names, seek.shape), self._values(seek))

    def _are_few(self) -> bool:
        values = {**self._parameters, "greatest": _FEW_SPANS + 1}
        return bool(self._reader.scalar(statements.span_count(self._names), values) <= _FEW_SPANS)

    def _values(self, seek: Seek) -> dict[str, Any]:
        return {**self._parameters, **seek.parameters}


def session_by_id(reader: Reader, session_id: str, filters: SessionFilters) -> SessionSummary:
    """Get one session, or the part of it that lies in the filters' time range.

    Raises:
        NotFound: no span that starts in the range has the id.
    """
    parameters = filters.parameters()
    days = None
    if not cuts_of(reader, TraceSpan, filters.start_time, filters.end_time, descending=True).is_one:
        days = _hashable(days_with(reader, SessionRollupDay.session_id, [session_id]))
    statement = statements.by_ids(frozenset(parameters), days)
    rows = reader.records(statement, {**parameters, "ids": [session_id]})
    if not rows:
        raise NotFound(f"there is no session {session_id}")
    return _summary(rows[0])


def _hashable(days: Sequence[Range] | None) -> tuple[Range, ...] | None:
    return None if days is None else tuple(days)


def _summary(record: dict[str, Any]) -> SessionSummary:
    for name in ("user_ids", "service_names"):
        record[name] = tuple(record[name] or ())
    return SessionSummary(**record)
