"""Reads the spans and events of a trace through the cache.

What is cached is compared with the rows. PostgreSQL tells the versions of all rows of a trace in
one statement, by where a row is stored and which transaction has stored it. That takes a fraction
of the time that reading them takes, and notices every change, whoever has made it, and however.
While no generation of the trace's days ends, it is not done again for a few seconds.

The values are stored with the versions of the very rows that the same statement has read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import xor
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec.msgpack import Decoder
from sqlalchemy import (
    BigInteger,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    not_,
    select,
    true,
)
from sqlalchemy.orm import Session, aliased

from observatory_storage.cache import DamagedValue, Dependency, OutOfDate, StoredValue, tag_of
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.cached_results import cache_of, is_like_others
from observatory_storage.repositories.reading.cached_rows import (
    Written,
    codec_of,
    decoded,
    encode,
)
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.trace_bounds import Bounds, start_bounds

__all__ = ["CachedTrace", "read_cached"]

# The spans of larger traces are not cached.
_MOST_SPANS: Final = 2_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class _Versions(NamedTuple):
    """What tells whether any row of a trace has changed.

    Attributes:
        first, last: the bounds of the starts of its spans, in microseconds.
        server: when the server was started. After a crash or a failover, the ids of transactions
            may have been given once more.
        trace: of the row of the trace.
        span_count, spans: the number of spans, and their versions together.
        event_count, events: the same of events.
    """

    first: int
    last: int
    server: int
    trace: int
    span_count: int
    spans: int
    event_count: int
    events: int


_CHECK: Final = struct.Struct(">8q")
_written: Final = Decoder(tuple[Written, Written])


@dataclass(frozen=True, slots=True)
class CachedTrace:
    """The spans and events of a trace, in their order, as they are written."""

    written: tuple[Written, Written]
    session: Session

    def spans(self, left_out: frozenset[str] = frozenset()) -> list[TraceSpan]:
        """The entities of its spans."""
        codec = codec_of(TraceSpan)
        return codec.entities(codec.read(self.written[0]), self.session, left_out)

    def events(self) -> list[TraceEvent]:
        """The entities of its events."""
        codec = codec_of(TraceEvent)
        return codec.entities(codec.read(self.written[1]), self.session)


def read_cached(reader: Reader, key: UUID, known: Bounds | None) -> CachedTrace | None:
    """The spans and events of a trace, read through the cache.

    Args:
        reader: the reader.
        key: the id of the trace.
        known: the bounds of its spans' starts, if they are known.

    Returns:
        None if they have to be read without the cache.
    """
    reads = cache_of(reader.session, "traces")
    if reads is None:
        return None
    return reads.read("traces", f"t:{key.hex}", _TraceRead(reader, key, known), reader.connection)


class _TraceRead:
    """A `CachedRead` of a trace."""

    def __init__(self, reader: Reader, key: UUID, known: Bounds | None) -> None:
        self._reader = reader
        self._key = key
        self._known = known

    @property
    def tag(self) -> bytes:
        return _tag()

    def depends_on(self, stored: StoredValue) -> Dependency | None:
        if not is_like_others(self._reader):
            return None
        versions = _versions_of(stored)
        first, last = _moment(versions.first), _moment(versions.last)
        return Dependency.on_range("spans", first, last + _MICROSECOND)

    def verify(self, stored: StoredValue) -> None:
        versions = _versions_of(stored)
        bounds = _moment(versions.first), _moment(versions.last)
        found = self._reader.rows(_VERSIONS, self._parameters(*bounds))
        if not found or not found[0].is_clean or versions[2:] != tuple(found[0][:6]):
            raise OutOfDate

    def open(self, stored: StoredValue) -> CachedTrace:
        return CachedTrace(decoded(_written, stored.body), self._reader.session)

    def ask(self) -> None:
        return None

    def fill(self) -> tuple[CachedTrace | None, StoredValue | None]:
        bounds = self._known or start_bounds(self._reader, self._key)
        if bounds is None or bounds.span_count > _MOST_SPANS:
            return None, None
        parameters = self._parameters(bounds.first, bounds.last)
        spans, span_rows = self._reader.beside_entities(_SPANS, parameters)
        events, event_rows = self._reader.beside_entities(_EVENTS, parameters)
        if not span_rows or not event_rows:
            return None, None
        state = span_rows[0]
        # Both statements must have seen the same trace, and its spans must be within the bounds.
        if state.trace != event_rows[0].trace or not (state.is_within and state.is_clean):
            return None, None
        if any(row.payload_frame is not None for row in (*spans, *events)):
            return None, None
        written = codec_of(TraceSpan).write(spans), codec_of(TraceEvent).write(events)
        if written[0] is None or written[1] is None:
            return None, None
        body = encode(written)
        if body is None:
            return None, None
        versions = (
            *(_micros(bounds.first), _micros(bounds.last), state.server, state.trace),
            *(*_together(span_rows), *_together(event_rows)),
        )
        trace = CachedTrace((written[0], written[1]), self._reader.session)
        return trace, StoredValue(_CHECK.pack(*versions), body)

    def _parameters(self, first: datetime, last: datetime) -> dict[str, Any]:
        return {"trace_id": self._key, "first": first, "last": last}


@cache
def _tag() -> bytes:
    codecs = (codec_of(TraceSpan), codec_of(TraceEvent))
    return tag_of([(codec.names, codec.types) for codec in codecs])


def _versions_of(stored: StoredValue) -> _Versions:
    if len(stored.check) != _CHECK.size:
        raise DamagedValue("it does not tell the versions of its rows")
    return _Versions(*_CHECK.unpack(stored.check))


def _together(rows: Any) -> tuple[int, int]:
    versions = [row.version for row in rows if row[0] is not None]
    together = 0
    for version in versions:
        together = xor(together, version)
    return len(versions), together


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return _EPOCH + micros * _MICROSECOND


def _version(alias: str, *more: str) -> Any:
    """The version of a row: the table and the place it is in, and who has put it there."""
    parts = [f"{alias}.{name}" for name in ("tableoid", "ctid", "xmin", *more)]
    return literal_column(f"hash_record_extended(ROW({', '.join(parts)}), 0)", BigInteger)


_TRACE: Final = aliased(Trace, name="trace")
_SPAN: Final = aliased(TraceSpan, name="span")
_EVENT: Final = aliased(TraceEvent, name="event")
_ID: Final[Any] = bindparam("trace_id")
_FIRST: Final[Any] = bindparam("first")
_LAST: Final[Any] = bindparam("last")
_OF_SPAN: Final = and_(_SPAN.trace_id == _ID, _SPAN.start_time >= _FIRST, _SPAN.start_time <= _LAST)
_OF_EVENT: Final = and_(
    _EVENT.trace_id == _ID, _EVENT.span_start_time >= _FIRST, _EVENT.span_start_time <= _LAST
)
_STATE: Final = (
    select(
        literal_column(
            "CAST(EXTRACT(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint)", BigInteger
        ).label("server"),
        _version("trace", "updated_at").label("trace"),
        and_(
            _TRACE.start_time >= _FIRST,
            func.coalesce(_TRACE.last_span_start, _TRACE.start_time) <= _LAST,
        ).label("is_within"),
        # A transaction that has written sees rows that others must not see. A standby is behind.
        and_(func.pg_current_xact_id_if_assigned().is_(None), not_(func.pg_is_in_recovery())).label(
            "is_clean"
        ),
    )
    .where(_TRACE.id == _ID)
    .subquery("state")
)


def _filling(entity: Any, condition: Any, *order: Any) -> Select[Any]:
    """Rows with their versions, and beside each the state of the trace; at least one row."""
    version = _version("span" if entity is _SPAN else "event").label("version")
    return (
        select(entity, version, *_STATE.c)
        .select_from(_STATE)
        .outerjoin(entity, condition)
        .order_by(*order)
    )


def _counted(entity: Any, condition: Any, name: str) -> Any:
    together = func.bit_xor(_version("span" if entity is _SPAN else "event"), type_=BigInteger)
    return (
        select(
            func.count().label("count"),
            func.coalesce(together, literal_column("0", BigInteger)).label("versions"),
        )
        .select_from(entity)
        .where(condition)
        .subquery(name)
    )


_SPANS: Final = _filling(_SPAN, _OF_SPAN, _SPAN.start_time, _SPAN.start_ns, _SPAN.span_id)
_EVENTS: Final = _filling(
    _EVENT,
    _OF_EVENT,
    _EVENT.span_start_time,
    _EVENT.span_start_ns,
    _EVENT.span_id,
    _EVENT.position,
)
_NOW_SPANS, _NOW_EVENTS = (
    _counted(_SPAN, _OF_SPAN, "spans_now"),
    _counted(_EVENT, _OF_EVENT, "events_now"),
)
_VERSIONS: Final = (
    select(
        _STATE.c.server,
        _STATE.c.trace,
        *_NOW_SPANS.c,
        *_NOW_EVENTS.c,
        _STATE.c.is_clean,
    )
    .select_from(_STATE)
    .join(_NOW_SPANS, true())
    .join(_NOW_EVENTS, true())
)
