"""Sessions (conversations): a session consists of the traces that have a span with its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from observatory_storage.errors import NotFound
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces import session_statements as statements
from observatory_storage.repositories.traces.results import SessionSummary
from observatory_storage.repositories.traces.session_filters import SessionFilters

__all__ = ["SessionSearch", "session_by_id"]

# Up to this many matching spans are grouped into sessions and sorted. If there are more, reading
# them backwards in time finds enough sessions soon.
_FEW_SPANS: Final = 20_000
# The newest spans are read first: 8 for each session of the page, then 64 if the first ones belong
# to too few sessions, but never more than `_MOST_SPANS` in all.
_SPANS_A_SESSION: Final = (8, 64)
_MOST_SPANS: Final = 20_000


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
        """
        return [_summary(record) for record in self._from_newest_spans(seek) or self._found(seek)]

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
        few = self._filters.is_indexed() and self._are_few()
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
    statement = statements.by_id(frozenset(parameters))
    rows = reader.records(statement, {**parameters, "session_id": session_id})
    if not rows:
        raise NotFound(f"there is no session {session_id}")
    return _summary(rows[0])


def _summary(record: dict[str, Any]) -> SessionSummary:
    for name in ("user_ids", "service_names"):
        record[name] = tuple(record[name] or ())
    return SessionSummary(**record)
