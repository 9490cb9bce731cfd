"""Checks the mapped items of a request and stores their rows, and keeps what became of each.

Rows are streamed into COPY while later items are mapped. If that does not work (a row is not valid,
or its key exists) the rows of the transaction are checked and stored one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from operator import itemgetter
from typing import Any, Final

from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.otlp.item_rules import by_rules
from observatory_storage.otlp.json_reader import within
from observatory_storage.otlp.resource_scope import Item
from observatory_storage.otlp.timeless_logs import is_timeless, use_stored_times
from observatory_storage.rows import PART, Row, prepare_all, prepare_many
from observatory_storage.storing import Source, StoreResult, chosen_method, store_into
from observatory_storage.storing.row_stream import StreamOutcome, stream
from observatory_storage.tables import DATA_POINTS, LOGS, METRICS, SPANS, TableDefinition, Values

__all__ = ["ItemStore"]

# A request is one transaction, unless it is so large that it would block others for long.
_ROWS_A_TRANSACTION: Final = 10_000
_repairs_of = itemgetter(Row._fields.index("repairs"))
_END: Final = SPANS.position["end_time"]
# Of a row whose key another one has: the field and the column to name, and the parts of the key.
_KEYS: Final = {
    SPANS.name: ("spanId", "span_id", "trace id, span id and start"),
    LOGS.name: ("attributes", "id", "id and time"),
    DATA_POINTS.name: ("timeUnixNano", "timestamp", "metric, attributes, start and time"),
}


class _TimeUnknown(Exception):
    """A log record has no time."""


class _ItemFeed:
    """Maps the items of a request, and prepares their rows, while earlier ones are written."""

    def __init__(self, table: TableDefinition, mapped: Iterator[Item]) -> None:
        self.table = table
        self.repaired = 0
        self._mapped = mapped
        self.items = list(islice(mapped, PART))

    def parts(self) -> Iterator[list[Row]]:
        """The rows of all items that are not refused.

        Raises:
            ValidationError: a row is not valid.
            _TimeUnknown: the time of a record has to be looked up first.
        """
        self.repaired = 0
        for start in count(0, PART):
            if start + PART > len(self.items):
                self.items += islice(self._mapped, start + PART - len(self.items))
            part = self.items[start : start + PART]
            if not part:
                return
            rows = [item.row for item in part if item.row is not None]
            if self.table is LOGS and any(map(is_timeless, rows)):
                raise _TimeUnknown
            if rows:
                prepared = prepare_all(self.table, rows)
                self.repaired += sum(map(_repairs_of, prepared))
                yield prepared

    def written(self, pool: Source, result: StoreResult) -> bool:
        """Whether all rows could be written while they were prepared. Then all items are mapped."""
        # Few rows are prepared in no time, and need no savepoint that may fail.
        if len(self.items) < PART or self.table is METRICS:
            return False
        try:
            done = stream(pool, self, None, result) is StreamOutcome.WRITTEN
        except (ValidationError, _TimeUnknown):
            done = False  # preparing them before they are written shows all that are not valid
        self.items += self._mapped
        return done


class ItemStore:
    """Stores the items of one table.

    Args:
        pool: the pool to write to.
        table: the table of their rows.

    Attributes:
        items: the items, in their order.
        outcomes: for each item the error for which it is not stored, its row, or None.
        repaired: how many values of stored rows were changed because PostgreSQL cannot hold them.
        duplicates: how many rows had a key that was stored before.
    """

    def __init__(self, pool: Source, table: TableDefinition) -> None:
        self._pool, self._table = pool, table
        self.items: list[Item] = []
        self.outcomes: list[Any] = []
        self.repaired = self.duplicates = 0
        self._streamed: list[int] = []
        self._key_of = itemgetter(*table.positions(*table.key))
        self._places: dict[Any, tuple[int, Values]] = {}

    def add(self, mapped: Iterable[Item]) -> ItemStore:
        """Store the items, and return the store."""
        rest = by_rules(self._pool.rules, self._table, mapped)
        while True:
            feed = _ItemFeed(self._table, islice(rest, _ROWS_A_TRANSACTION))
            if not feed.items:
                return self
            first, result = len(self.items), StoreResult()
            with self._pool.hooks.measure("ingest", self._table.name) as measured:
                try:
                    self._add_transaction(feed, result)
                finally:
                    measured.bytes, measured.retries = result.sent.count, result.retries
                if self._pool.hooks.registered:
                    items, outcomes = self.items[first:], self.outcomes[first:]
                    measured.rejected = sum(isinstance(one, StorageError) for one in outcomes)
                    kept = sum(item.row is not None or item.error is not None for item in items)
                    measured.rows = kept - measured.rejected
                    measured.method = chosen_method("auto", measured.rows)

    def _add_transaction(self, feed: _ItemFeed, result: StoreResult) -> None:
        written = feed.written(self._pool, result)
        self.outcomes += [item.error for item in feed.items]
        places = [
            place for place, item in enumerate(feed.items, len(self.items)) if item.row is not None
        ]
        self.items += feed.items
        if written:
            self.repaired += feed.repaired
            self._streamed += places
        else:
            self._store_prepared(places, result)

    def _store_prepared(self, places: list[int], result: StoreResult) -> None:
        rows = [self.items[at].row for at in places]
        if self._table is LOGS:
            use_stored_times(self._pool, rows)
        prepared, refused = prepare_many(self._table, rows)
        if refused is not None:
            for one in refused.rejected:
                self._refuse(places[one.index], one.error)
            places = [at for at in places if self.outcomes[at] is None]
        by_place = dict(zip(places, prepared, strict=True))
        if self._table is not METRICS:  # a metric may be stated again for other data points
            self._refuse_repeated(by_place)
        self._store(by_place, result)

    def _store(self, by_place: dict[int, Row], result: StoreResult) -> None:
        places = list(by_place)
        for at, row in by_place.items():
            self.outcomes[at] = row
        store_into(result, self._pool, list(by_place.values()))
        for rejected in result.rejected:
            self.outcomes[places[rejected.index]] = rejected.error
            del by_place[places[rejected.index]]
        self.repaired += result.repaired + sum(map(_repairs_of, by_place.values()))
        self.duplicates += result.duplicates

    def _refuse(self, at: int, error: StorageError) -> None:
        path = self.items[at].path
        self.outcomes[at] = within(path, error) if isinstance(error, ValidationError) else error

    def _refuse_repeated(self, by_place: dict[int, Row]) -> None:
        """Refuse a row whose key an earlier row of the request has, since only one can be stored.

        Of two versions of a span, of which only the second has ended, the second is stored.
        """
        self._remember_streamed()
        key_of, known = self._key_of, self._places
        for at, row in list(by_place.items()):
            key = key_of(row.values)
            first, version = known.setdefault(key, (at, row.values))
            if first == at:
                continue
            if self._table is SPANS and version[_END] is None and row.values[_END] is not None:
                known[key] = (at, row.values)
                refused, other = first, at
            else:
                refused, other = at, first
            by_place.pop(refused, None)
            self._refuse(refused, self._repeated(row.values, self.items[other].path))

    def _repeated(self, values: Values, other: str) -> ValidationError:
        field, column, key = _KEYS[self._table.name]
        rule = f"must not have the {key} of {other}: one of the two is stored"
        return ValidationError(field, values[self._table.position[column]], rule)

    def _remember_streamed(self) -> None:
        """Note the keys of the rows that earlier transactions of this request have streamed."""
        rows: Sequence[Row] = prepare_all(
            self._table, [self.items[at].row for at in self._streamed]
        )
        for at, row in zip(self._streamed, rows, strict=True):
            self._places[self._key_of(row.values)] = (at, row.values)
        self._streamed = []
