"""Gives rows that were read the whole values of their attributes, instead of previews.

Rows are dictionaries of columns: those of a statement's result, or of an entity.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, MutableMapping, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.distribution import commits_end, is_sharded
from observatory_storage.errors import NotFound, translated
from observatory_storage.models import Base, LogRecord, Trace, TraceEvent, TraceSpan
from observatory_storage.payloads.frame import DamagedFrame, Frame, Owner
from observatory_storage.payloads.frame_keys import FrameKey
from observatory_storage.payloads.frame_sets import FRAME_SETS, FrameSet, OwnerTable
from observatory_storage.payloads.log_values import put_back_in_log
from observatory_storage.payloads.moved_values import put_back
from observatory_storage.payloads.stored_frames import read_frames
from observatory_storage.tables import EVENTS, LOGS, PAYLOAD_COLUMNS, SPANS, TableDefinition

__all__ = ["FramedRow", "fill_whole", "log_damage", "open_payloads", "values_of"]

Connection = sa.Connection | Session
FramedRow = MutableMapping[str, Any]
Values = dict[str, bytes]
R = TypeVar("R")

_log = logging.getLogger(__name__)
_FRAME, _ = PAYLOAD_COLUMNS
_INLINE: Final = dict.fromkeys(PAYLOAD_COLUMNS)
_OWNERS: Final[dict[str, tuple[FrameSet, OwnerTable]]] = {
    owners.definition.name: (of, owners) for of in FRAME_SETS for owners in of.owners
}
# Other transactions may move values between the statements that read a row and its frame.
_ATTEMPTS: Final = 3
_PATIENCE_SECS: Final = 10.0


def open_payloads(rows: Iterable[R], session: Session) -> list[R]:
    """Fill spans, events and log records that a session of your own has read with all values.

    Large values may be stored compressed, beside their rows. A row that was read without a
    repository then has previews in its ``attributes``, and a log record in its ``body_json``: the
    first 100 characters as text. This function replaces them by the values, in these rows, in the
    ``spans`` of traces and in the ``events`` of spans if they are loaded. It runs at most one
    statement for spans, one for events and one for log records. Filling a row does not change it:
    there is nothing to write. What was changed in its attributes stays so.

    Example:
        >>> spans = open_payloads(session.scalars(select(TraceSpan).limit(50)), session)
        >>> joined = select(TraceSpan, Trace).join(TraceSpan.trace)
        >>> for span, trace in open_payloads(session.execute(joined), session):
        ...     print(trace.trace_id, span.attributes)

    Args:
        rows: `TraceSpan`s, `TraceEvent`s, `LogRecord`s and `Trace`s, and rows of results or tuples
            of these. What is whole already, and all other values, are left as they are: also a
            column that was selected by itself, such as `TraceSpan.attributes`.
        session: the session to read with.

    Returns:
        The rows.

    Raises:
        DamagedFrame: values are damaged or missing. The message names the frame. All other rows are
            filled.
        NotFound: a row has been deleted since it was read.
        StorageError: the database could not be used.
    """
    given = list(rows)
    found = {id(row): row for one in given for row in _within(one)}.values()
    damaged: list[DamagedFrame] = []
    with translated():
        for table in (SPANS, EVENTS, LOGS):
            entities = [row for row in found if isinstance(row, table.model)]
            damaged += _open(session, table, entities)
    if damaged:
        raise damaged[0]
    for row in found:
        if row.payload_frame is not None:
            raise NotFound(f"{row!r} has been deleted since it was read")
    return given


def _within(value: object) -> Iterator[TraceSpan | TraceEvent | LogRecord]:
    """The spans, events and log records in a row of a result. Nothing is loaded."""
    if isinstance(value, (sa.Row, tuple)):
        for each in value:
            yield from _within(each)
    elif isinstance(value, Trace):
        for span in vars(value).get("spans") or ():
            yield from _within(span)
    elif isinstance(value, TraceSpan):
        yield value
        yield from vars(value).get("events") or ()
    elif isinstance(value, (TraceEvent, LogRecord)):
        yield value


def _open(session: Session, table: TableDefinition, entities: Iterable[Base]) -> list[DamagedFrame]:
    _, owners = _OWNERS[table.name]
    names = (*owners.columns, *owners.moving, "payload_digests")
    # By `getattr`, so that columns which have expired are read again.
    copies = [(entity, {name: getattr(entity, name) for name in names}) for entity in entities]
    damaged = fill_whole(session, table, [copy for _, copy in copies])
    for entity, copy in copies:
        # As if they had been read so: setting them would be a change to write.
        vars(entity).update({name: copy[name] for name in (*owners.moving, *PAYLOAD_COLUMNS)})
    return damaged


def fill_whole(
    connection: Connection,
    table: TableDefinition,
    rows: Iterable[FramedRow],
    as_text: Container[str] = (),
) -> list[DamagedFrame]:
    """Fill rows of spans, events or log records with their whole values, by one statement.

    It runs no statement if no row has values in a frame. A filled row has its values itself, so its
    `payload_frame` and `payload_digests` are None. Rows stay as they are if their frame is damaged,
    or if they have been deleted meanwhile.

    Args:
        connection: a connection or a session.
        table: spans, events or log records.
        rows: have the columns of the owner, those whose values move, and `payload_frame`.
        as_text: the JSON columns that rows have as text. Their values do not move.

    Returns:
        An error that names its frame for each row of a damaged one.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    waiting = [row for row in rows if row[_FRAME] is not None]
    damaged = []
    for row, values in zip(waiting, values_of(connection, table, waiting, as_text), strict=True):
        if isinstance(values, DamagedFrame):
            damaged.append(values)
        elif values is not None:
            if table is LOGS:
                row.update(put_back_in_log(row, values))
            else:
                row["attributes"] = put_back(row["attributes"], values)
            row.update(_INLINE)
    return damaged


def log_damage(damaged: Iterable[DamagedFrame]) -> None:
    """Log each damaged frame once. Its rows have previews only."""
    for message in dict.fromkeys(map(str, damaged)):
        _log.error("%s (there are only previews of its values)", message)


def values_of(
    connection: Connection,
    table: TableDefinition,
    rows: Sequence[FramedRow],
    as_text: Container[str] = (),
) -> list[Values | DamagedFrame | None]:
    """The values that rows have in frames, by one statement.

    A row whose values have been moved since it was read is read again, and updated.

    Args:
        connection: a connection or a session.
        table: spans, events or log records.
        rows: have the columns of the owner, those whose values move, and a `payload_frame` that is
            not None.
        as_text: the JSON columns that rows have as text.

    Returns:
        The values of each row, an error that names its damaged frame, or None if the row has been
        deleted meanwhile.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    found: list[Values | DamagedFrame | None] = [None] * len(rows)
    waiting: Sequence[int] = range(len(rows))
    for attempt in range(_ATTEMPTS):
        places = [_place(table, rows[index]) for index in waiting]
        frames = read_frames(connection, {key for key, _ in places}, _OWNERS[table.name][0])
        lost = []
        for index, (key, owner) in zip(waiting, places, strict=True):
            found[index] = values = _values(frames[key], key, owner)
            if isinstance(values, DamagedFrame):
                lost.append(index)
        if not lost or attempt == _ATTEMPTS - 1:
            break
        waiting = []
        is_late = attempt == 0 and table is LOGS and _has_waited(connection)
        for index in lost:
            row = rows[index]
            now = _read_again(connection, table, row, as_text)
            if now is None:
                found[index] = None
            elif is_late or now[_FRAME] != row[_FRAME]:
                row.update(now)
                found[index] = {}
                if now[_FRAME] is not None:
                    waiting.append(index)
    return found


def _has_waited(connection: Connection) -> bool:
    """Wait for transactions that are being committed; False where one server commits at once.

    With shards, a record may be on another worker than its frame, which commits a moment later.
    """
    own = connection.connection() if isinstance(connection, Session) else connection
    return is_sharded(own) and commits_end(own, _PATIENCE_SECS)


def _place(table: TableDefinition, row: FramedRow) -> tuple[FrameKey, Owner]:
    of, owners = _OWNERS[table.name]
    return of.key(row["trace_id"], row[owners.start], row[_FRAME]), owners.owner(row)


def _values(frame: Frame | DamagedFrame, key: FrameKey, owner: Owner) -> Values | DamagedFrame:
    if isinstance(frame, DamagedFrame):
        return frame
    return frame.get(owner) or DamagedFrame(f"{key}: it lacks values of {owner}")


def _read_again(
    connection: Connection, table: TableDefinition, row: FramedRow, as_text: Container[str]
) -> Any:
    """The columns of the row as they are stored now; None if it is not there any more."""
    columns = [
        sa.cast(column, sa.Text).label(column.name) if column.name in as_text else column
        for column in table.table.c
        if column.name in row
    ]
    key = (table.table.c[name] == row[name] for name in table.key)
    return connection.execute(sa.select(*columns).where(*key)).mappings().one_or_none()
