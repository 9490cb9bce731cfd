"""Which of the rows of an entry filters choose, and the entities made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from sqlalchemy import inspect

from observatory_storage.config import StorageConfig
from observatory_storage.repositories import LogFilters, SpanFilters, TraceFilters
from observatory_storage.repositories.logs.known_records import matching_record_keys
from observatory_storage.repositories.metrics.point_filters import DataPointFilters
from observatory_storage.repositories.reading.entities import EntityMaker
from observatory_storage.repositories.reading.filter_fields import Filters
from observatory_storage.repositories.reading.known_rows import matching_keys
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.known_traces import matching_span_keys, matching_traces
from observatory_storage.storing.transaction import retrying
from observatory_storage.streams.live_filter import LiveFilter
from observatory_storage.streams.streamed_signals import Signal
from observatory_storage.tables import TRACES
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["FILTERS", "Selection", "Store"]

FILTERS: Final[Mapping[str, type[Filters]]] = {
    "spans": SpanFilters,
    "traces": TraceFilters,
    "logs": LogFilters,
    "data_points": DataPointFilters,
}
"""The filters of each signal."""
_REMEDY: Final = (
    "it was not published (see the setting streams.payloads); read the row from the database"
)

Row = Mapping[str, Any]


class Store(Protocol):
    """The attributes of a pool that reading needs."""

    @property
    def config(self) -> StorageConfig: ...
    def unit_of_work(self) -> UnitOfWork: ...


class Selection:
    """Chooses rows of a signal.

    Most conditions are decided on the published values. PostgreSQL decides those on JSON and on
    words, in one query for the rows of an entry that meet the others. Of traces, only the ids are
    published, so PostgreSQL decides everything.

    Args:
        store: the pool.
        signal: the signal.
        filters: the filters.
    """

    def __init__(self, store: Store, signal: Signal, filters: Filters) -> None:
        self._store = store
        self._signal = signal
        self._filters = filters
        self._live = LiveFilter(filters)

    def chosen(self, rows: Sequence[Row], first: int = 0) -> list[tuple[int, Any]]:
        """The entities of the chosen rows, each with its index.

        Args:
            rows: the rows of an entry.
            first: the index of the first row that is considered.

        Raises:
            StorageError: PostgreSQL could not be read.
        """
        indexes = range(first, len(rows))
        if self._signal.table is TRACES:
            return self._traces([rows[index]["id"] for index in indexes], first)
        meets = self._live.meets
        found = [index for index in indexes if meets(rows[index])]
        if found and self._live.undecided:
            keys = {index: tuple(rows[index][c] for c in self._signal.table.key) for index in found}
            stored = self._read(lambda reader: self._matching(reader, list(keys.values())))
            found = [index for index in found if keys[index] in stored]
        return [(index, self._entity(rows[index])) for index in found]

    def _traces(self, ids: Sequence[Any], first: int) -> list[tuple[int, Any]]:
        assert isinstance(self._filters, TraceFilters)
        filters = self._filters
        if not ids:
            return []
        found = self._read(lambda reader: matching_traces(reader, ids, filters))
        return [(first + ids.index(trace.id), trace) for trace in found]

    def _matching(self, reader: Reader, keys: list[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
        if isinstance(self._filters, SpanFilters):
            return matching_span_keys(reader, keys, self._filters)
        if isinstance(self._filters, LogFilters):
            return matching_record_keys(reader, keys, self._filters)
        return matching_keys(reader, self._signal.table, keys, self._filters.conditions())

    def _read(self, query: Any) -> Any:
        def once() -> Any:
            with self._store.unit_of_work() as work:
                return query(Reader(work.session))

        return retrying(self._store.config, once)

    def _entity(self, row: Row) -> Any:
        maker, names = _maker(self._signal, tuple(row))
        return maker.one([row[name] for name in names])


@lru_cache
def _maker(signal: Signal, published: Sequence[str]) -> tuple[EntityMaker[Any], Sequence[str]]:
    mapper = inspect(signal.table.model)
    names = [column.key for column in mapper.column_attrs if column.key in published]
    return EntityMaker(mapper, names, remedy=_REMEDY), names
