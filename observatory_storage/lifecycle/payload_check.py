"""Checks payload frames: opens them, and compares them with the rows that refer to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.lifecycle.payload_walk import covered_ranges, is_of, is_within, traces_in
from observatory_storage.lifecycle.run import Deadline
from observatory_storage.payloads import (
    FRAME_SETS,
    DamagedFrame,
    Frame,
    FrameKey,
    FrameSet,
    Owner,
    digest_of,
    hour_of,
    is_one_of,
    opened,
)
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source
from observatory_storage.time_ranges import MAX, MIN, Range
from observatory_storage.wording import counted

__all__ = ["CheckedPayloads", "PayloadProblem", "check_payloads"]

_BYTES_AT_A_TIME: Final = 16 << 20
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PayloadProblem(Result):
    """A payload frame that is not as it should be.

    Attributes:
        trace_id: the `id` of the trace.
        start_time: the hour in which the spans of the frame start, or of its log records.
        frame_id: the id of the frame.
        kind: ``damaged`` if it cannot be opened; ``missing`` if rows refer to it, or to values in
            it, that are not there; ``garbage`` if it has values that no row refers to.
        values: the number of values that are missing or garbage; 0 if it is damaged.
        message: what is wrong, for people.
    """

    trace_id: UUID
    start_time: datetime
    frame_id: int
    kind: Literal["damaged", "missing", "garbage"]
    values: int
    message: str


@dataclass(frozen=True, slots=True)
class CheckedPayloads(Result):
    """The result of `check_payloads`.

    Attributes:
        frames: the frames that were opened.
        values: the values in them.
        problems: what was found.
        next_start: the start of the next call, which continues there; None at the end.
    """

    frames: int = 0
    values: int = 0
    problems: tuple[PayloadProblem, ...] = ()
    next_start: datetime | None = None


_Digests = dict[Owner, dict[str, str]]


def check_payloads(
    source: Source,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    for_secs: float | None = None,
    progress: Callable[[CheckedPayloads], object] | None = None,
) -> CheckedPayloads:
    """Open all payload frames, and compare them with the rows that refer to them.

    The rows are spans, events and log records.

    Frames and rows of some traces are read in one snapshot, so the call can run beside writers.
    Nothing is changed.

    Args:
        source: the pool.
        start: the first hour of the rows; None for the oldest.
        end: the first hour that is left out; None for no bound.
        for_secs: stop after the partition in which this time ends, in seconds.
        progress: is called after each transaction.

    Raises:
        ConfigError: there are frames, and Zstandard is not installed.
        StorageError: the database could not be used.
        ValidationError: an argument is not valid.
    """
    deadline = Deadline(for_secs)
    frames = values = 0
    problems: list[PayloadProblem] = []
    for stored in covered_ranges(source, start, end):
        held = _whole_hours(stored)
        for of, traces in _traces(source, held):
            checked = _check(source, of, traces, held)
            frames, values = frames + checked.frames, values + checked.values
            problems += checked.problems
            if progress is not None:
                progress(CheckedPayloads(frames, values, tuple(problems), stored.lower))
        if deadline.is_over and stored.upper != MAX:
            return CheckedPayloads(frames, values, tuple(problems), stored.upper)
    return CheckedPayloads(frames, values, tuple(problems))


def _whole_hours(held: Range) -> Range:
    """The hours that a range touches: frames stand at their begin."""
    lower = held.lower if held.lower == MIN else hour_of(held.lower)
    is_whole = held.upper == MAX or held.upper == hour_of(held.upper)
    return Range(lower, held.upper if is_whole else hour_of(held.upper) + _HOUR)


def _traces(source: Source, held: Range) -> Iterator[tuple[FrameSet, list[UUID]]]:
    """The traces that have frames, or rows with values in some."""
    for of in FRAME_SETS:
        conditions: list[Any] = [(of.table, "start_time", sa.true())]
        conditions += [
            (one.table, one.start, one.table.c.payload_frame.is_not(None)) for one in of.owners
        ]
        for traces in traces_in(source, conditions, held):
            yield of, traces


def _check(source: Source, of: FrameSet, traces: Sequence[UUID], held: Range) -> CheckedPayloads:
    with translated(), source.engine.connect() as any_connection:
        connection = any_connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            referred = _referred(connection, of, traces, held)
            frames = values = 0
            problems: list[PayloadProblem] = []
            for one, frame in _opened(connection, of, traces, held):
                digests: _Digests = {}
                for name in one.names:
                    digests |= referred.pop(name, {})
                frames += 1
                if isinstance(frame, DamagedFrame):
                    problems.append(PayloadProblem(*one.key, "damaged", 0, str(frame)))
                    continue
                values += sum(map(len, frame.values()))
                problems += _differences(one.key, frame, digests)
    for key, digests in sorted(referred.items()):
        count = sum(map(len, digests.values()))
        problems.append(PayloadProblem(*key, "missing", count, str(opened(key, None))))
    return CheckedPayloads(frames, values, tuple(problems))


def _differences(key: FrameKey, frame: Frame, digests: _Digests) -> Iterator[PayloadProblem]:
    """What the frame has too little or too much."""
    found = {
        (owner, name, digest_of(value))
        for owner, values in frame.items()
        for name, value in values.items()
    }
    wanted = {
        (owner, name, digest) for owner, named in digests.items() for name, digest in named.items()
    }
    if missing := sorted({(str(owner), name) for owner, name, _ in wanted - found}):
        message = f"{key}: values are missing: {_listed(missing)}"
        yield PayloadProblem(*key, "missing", len(wanted - found), message)
    if garbage := sorted({(str(owner), name) for owner, name, _ in found - wanted}):
        message = f"{key}: no row refers to {_listed(garbage)}"
        yield PayloadProblem(*key, "garbage", len(found - wanted), message)


def _listed(values: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(f"{name} of {owner}" for owner, name in values[:3])
    return shown if len(values) <= 3 else f"{shown} and {counted(len(values) - 3, 'other')}"


def _referred(
    connection: sa.Connection, of: FrameSet, traces: Sequence[UUID], held: Range
) -> dict[FrameKey, _Digests]:
    """The digests that the rows of these traces have, by the frames that they name."""
    found: dict[FrameKey, _Digests] = defaultdict(dict)
    for owners in of.owners:
        rows = owners.table.c
        statement = sa.select(*(rows[name] for name in owners.columns), rows.payload_digests).where(
            is_of(owners.table, traces),
            is_within(rows[owners.start], held),
            rows.payload_frame.is_not(None),
        )
        for row in connection.execute(statement).mappings():
            key = of.key(row["trace_id"], row[owners.start], row["payload_frame"])
            found[key][owners.owner(row)] = owners.digests(row)
    return found


class _Listed(NamedTuple):
    key: FrameKey
    names: list[FrameKey]
    value_bytes: int


def _opened(
    connection: sa.Connection, of: FrameSet, traces: Sequence[UUID], held: Range
) -> Iterator[tuple[_Listed, Frame | DamagedFrame]]:
    """The frames of these traces; some are in memory at a time."""
    columns = of.table.c
    statement = sa.select(
        columns.trace_id, columns.start_time, columns.id, columns.packed_ids, columns.value_bytes
    ).where(is_of(of.table, traces), is_within(columns.start_time, held))
    for some in _chunks(_listed_frame(of, row) for row in connection.execute(statement).all()):
        given = {one.key: one for one in some}
        reading = sa.select(columns.trace_id, columns.start_time, columns.id, columns.data)
        for row in connection.execute(reading.where(is_one_of(list(given), of))):
            key = of.key(row.trace_id, row.start_time, row.id)
            yield given[key], opened(key, row.data)


def _listed_frame(of: FrameSet, row: Any) -> _Listed:
    key = of.key(row.trace_id, row.start_time, row.id)
    names = [key, *(key._replace(id=packed) for packed in row.packed_ids or ())]
    return _Listed(key, names, row.value_bytes)


def _chunks(frames: Iterable[_Listed]) -> Iterator[list[_Listed]]:
    chunk: list[_Listed] = []
    size = 0
    for frame in frames:
        chunk.append(frame)
        size += frame.value_bytes
        if size >= _BYTES_AT_A_TIME:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
