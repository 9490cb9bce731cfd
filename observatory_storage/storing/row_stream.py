"""Streams rows from the caller into COPY: parts are prepared while the server inserts others.

The server takes longer for a row than the client, so preparing during the COPY costs no time. The
stream handles only clean rows. If a key exists already, a partition is missing or text must be
repaired, `store.write_batch` writes the batch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import Enum, auto
from functools import partial
from itertools import islice
from typing import Any, Protocol

from observatory_storage.changed_spans import mark_changes
from observatory_storage.commits import Change, Commit
from observatory_storage.config import PayloadMode
from observatory_storage.errors import ValidationError
from observatory_storage.layout import Partitions
from observatory_storage.models import TraceSpan
from observatory_storage.payloads import hours_of
from observatory_storage.rows import PART, Row, Rules, as_mapping, prepare_all, remember_id
from observatory_storage.storing.binary_copy import copy_parts
from observatory_storage.storing.conflict_rules import target_of
from observatory_storage.storing.log_loading import copy_logs
from observatory_storage.storing.span_copy import SpanCopy
from observatory_storage.storing.span_filling import LoggedFacts, fill_from_logs, logged_facts
from observatory_storage.storing.store import StoreResult
from observatory_storage.storing.stored_usage import decide_traces
from observatory_storage.storing.trace_upsert import add_totals
from observatory_storage.storing.transaction import (
    PartitionMissing,
    Source,
    payload_threshold,
    retrying,
    writing,
)
from observatory_storage.storing.upsert import Loader, is_text_error
from observatory_storage.tables import (
    EVENTS,
    LOG_FRAMES,
    LOGS,
    PAYLOAD_FRAMES,
    SPANS,
    TableDefinition,
)

__all__ = ["Feed", "RowFeed", "StreamOutcome", "stream"]


_START, _ATTRIBUTES = SPANS.positions("start_time", "attributes")


class Feed(Protocol):
    """Prepares rows of a table, part by part. After a transient error it begins again."""

    table: TableDefinition

    def parts(self) -> Iterator[list[Row]]: ...


class RowFeed:
    """Prepares rows of a table on demand; spans in the order of their starts.

    Args:
        table: the table.
        rows: the rows as they were given.
        rules: the rules of the configuration, if there are any.

    Raises:
        ValidationError: there are rules, and a row is neither a mapping nor a row of the table.
    """

    def __init__(
        self, table: TableDefinition, rows: Iterable[Any], rules: Rules | None = None
    ) -> None:
        self.table = table
        self._given = self._rows = list(rows)
        self._indexes: Sequence[int] = range(len(self._rows))
        if rules is not None:
            self._apply(rules)

    def __len__(self) -> int:
        return len(self._rows)

    def _apply(self, rules: Rules) -> None:
        """Replace the rows by what the rules leave of them."""
        changed = []
        for index, row in enumerate(self._given):
            try:
                changed.append(rules.applied(self.table, as_mapping(row, self.table.model)))
            except ValidationError as error:
                raise ValidationError(error.field, error.value, error.rule, index) from None
        self._indexes = [index for index, row in enumerate(changed) if row is not None]
        self._given = [self._given[index] for index in self._indexes]
        self._rows = [changed[index] for index in self._indexes]

    def parts(self) -> Iterator[list[Row]]:
        """All the rows, in parts.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        rows = self._rows
        order = iter(_order_of(rows) if self.table is SPANS else range(len(rows)))
        while indexes := list(islice(order, PART)):
            given = [rows[index] for index in indexes]
            part = self._prepared(given, indexes)
            if self.table is SPANS:
                part = [
                    made.knowing(row.get("attributes")) if type(row) is dict else made
                    for row, made in zip(given, part, strict=True)
                ]
            _remember_ids([self._given[index] for index in indexes], part)
            yield part

    def all(self) -> list[Row]:
        """All the rows, in the order in which they were given.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        prepared = self._prepared(self._rows, range(len(self._rows)))
        _remember_ids(self._given, prepared)
        return prepared

    def _prepared(self, rows: Sequence[Any], indexes: Sequence[int]) -> list[Row]:
        try:
            return prepare_all(self.table, rows)
        except ValidationError as error:
            index = None if error.index is None else self._indexes[indexes[error.index]]
            raise ValidationError(error.field, error.value, error.rule, index) from None


def _remember_ids(given: Sequence[Any], prepared: Sequence[Row]) -> None:
    for row, made in zip(given, prepared, strict=True):
        if type(row) is not dict:
            remember_id(row, made)


def _order_of(rows: list[Any]) -> Sequence[int]:
    """The indexes of unprepared rows in `span_merge.ORDER`, as far as it can be determined.

    Writers that use the same order wait for each other. With different orders they can deadlock,
    which a retry resolves.
    """
    try:
        starts = [row["start_time"] for row in rows if type(row) is dict]
        if len(starts) == len(rows) and all(map(operator.lt, starts, starts[1:])):
            return range(len(rows))  # as they mostly come
        keys = [_key_of(row) for row in rows]
        return sorted(range(len(rows)), key=keys.__getitem__)
    except (TypeError, KeyError, AttributeError):  # preparing says what is wrong
        return range(len(rows))


def _key_of(row: Any) -> tuple[Any, ...]:
    if isinstance(row, TraceSpan):
        return row.start_time, row.trace_id, row.span_id
    return row["start_time"], row["trace_id"], row["span_id"]


class StreamOutcome(Enum):
    """The outcome of a stream: it has written all rows or none."""

    WRITTEN = auto()
    CONFLICT = auto()
    NOT_CLEAN = auto()


class _NotClean(Exception):
    """The stream met rows whose partition is not known to exist."""


def stream(
    source: Source,
    feed: Feed,
    payloads: PayloadMode | None = None,
    result: StoreResult | None = None,
) -> StreamOutcome:
    """Commit the rows of the feed, spans with their events and traces, in one transaction.

    Args:
        source: the pool.
        feed: prepares the rows.
        payloads: where large values are stored; None is as configured.
        result: counts the bytes that are sent, and the retries.

    Raises:
        ValidationError: a row is not valid; the error names it by its index in the batch.
        StorageError: the database could not be written to.
    """
    result = result or StoreResult()

    def once() -> StreamOutcome:
        is_spans = feed.table is SPANS
        prices = source.prices.table() if is_spans else None
        keeps_rows = source.commits.keeps_rows
        noted = _Noted(feed.table, keeps_rows=keeps_rows and not is_spans)
        has_payloads = feed.table in (SPANS, LOGS)
        threshold = payload_threshold(source, payloads) if has_payloads else None
        try:
            with (
                writing(source),
                source.commits.telling() as telling,
                source.engine.begin() as connection,
            ):
                loader = Loader(
                    *(connection, "auto", result.sent),
                    prices=prices,
                    payload_threshold=threshold,
                    keep_spans=keeps_rows,
                )
                outcome = _stream(loader, feed, source.partitions, noted)
                if outcome is StreamOutcome.WRITTEN:
                    spans = loader.written_spans
                    telling.announce(connection, noted.commit() if not spans else Commit(spans))
        except PartitionMissing:
            return StreamOutcome.NOT_CLEAN
        return outcome

    return retrying(source.config, once, before_sleep=result.retried)


def _stream(loader: Loader, feed: Feed, partitions: Partitions, noted: _Noted) -> StreamOutcome:
    parts = noted.of(_clean_parts(feed, partitions, loader.payload_threshold))
    told: list[LoggedFacts] = []
    starts: list[datetime] = []
    if feed.table is LOGS:
        parts = _noting_facts(parts, told)
    try:
        if feed.table is SPANS:
            totals = SpanCopy(loader).run(_noting_starts(parts, starts))
            written = totals is not None
        else:
            target = target_of(feed.table)
            values = ([row.values for row in part] for part in parts)
            if feed.table is LOGS:
                copied = partial(copy_logs, loader, values)
            else:
                into = target.target
                copied = partial(copy_parts, loader.connection, target, values, into, loader.sent)
            totals, written = None, loader.attempt(target, copied)
    except _NotClean:
        return StreamOutcome.NOT_CLEAN
    except Exception as error:  # the driver's or Python's own; others are raised
        if not is_text_error(error):
            raise
        return StreamOutcome.NOT_CLEAN
    if not written:
        return StreamOutcome.CONFLICT
    if totals is not None:
        mark_changes(loader.connection, starts)
        decide_traces(loader.connection, add_totals(loader, totals))
    if told:
        fill_from_logs(loader.connection, told)
    return StreamOutcome.WRITTEN


class _Noted:
    """What has been sent of a stream: its rows if a listener wants them, else their times."""

    def __init__(self, table: TableDefinition, *, keeps_rows: bool) -> None:
        self._table = table
        self._rows: list[Row] | None = [] if keeps_rows else None
        self._times: list[datetime] = []

    def of(self, parts: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """The parts, which are noted when they are asked for."""
        position = self._table.partition_position
        for part in parts:
            if self._rows is not None:
                self._rows += part
            elif position is not None:
                times = [row[1][position] for row in part]
                self._times += [min(times), max(times)]
            yield part

    def commit(self) -> Commit:
        """What the transaction commits."""
        if self._rows is not None:
            return Commit(self._rows)
        if self._table is SPANS:
            return Commit()  # what has changed of spans is noted
        first, last = min(self._times, default=None), max(self._times, default=None)
        return Commit(changes=[Change(self._table.name, first, last)])


def _noting_starts(parts: Iterable[list[Row]], starts: list[datetime]) -> Iterator[list[Row]]:
    for part in parts:
        starts += [row[1][_START] for row in part]
        yield part


def _noting_facts(parts: Iterable[list[Row]], told: list[LoggedFacts]) -> Iterator[list[Row]]:
    for part in parts:
        told += logged_facts(part)
        yield part


def _clean_parts(feed: Feed, partitions: Partitions, threshold: int | None) -> Iterator[list[Row]]:
    name, position = feed.table.name, feed.table.partition_position
    for part in feed.parts():
        if position is not None:
            starts = [row[1][position] for row in part]
            if not partitions.hold(name, starts):
                raise _NotClean
            if threshold is not None and feed.table is LOGS:
                if not partitions.hold(LOG_FRAMES.name, [*hours_of(starts)]):
                    raise _NotClean
            elif threshold is not None:
                large = [
                    row[1][_START] for row in part if row[2] or len(row[1][_ATTRIBUTES]) > threshold
                ]
                if large and not partitions.hold(PAYLOAD_FRAMES.name, [*hours_of(large)]):
                    raise _NotClean
            with_events = [row[1][position] for row in part if row[2]]
            if with_events and not partitions.hold(EVENTS.name, with_events):
                raise _NotClean
        yield part
