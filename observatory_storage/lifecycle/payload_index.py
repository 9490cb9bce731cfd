"""Indexes the words of payload frames, behind the writers.

A writer notes each hour of a trace whose frames it changes in `payload_unindexed`. This step takes
notes from there and writes a segment with the words, in one transaction: every frame is either
noted or in a segment, whatever is killed. Readers read the frames of noted hours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

import orjson
import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.segment_merging import (
    holding,
    merge_segments,
    segments_to_merge,
    without_frames,
    write_segment,
)
from observatory_storage.models import PayloadUnindexed
from observatory_storage.payloads.content_words import words_of_texts, words_of_values
from observatory_storage.payloads.framed_rows import WholeLog, framed_logs, framed_rows
from observatory_storage.payloads.word_blocks import HourKey, encoded, is_frequent
from observatory_storage.serialization import Result
from observatory_storage.wording import counted

__all__ = ["IndexedPayloads", "index_payloads"]

_UNINDEXED: Final = cast(sa.Table, PayloadUnindexed.__table__)
# The hours of traces of a transaction, and those whose rows are in memory at a time.
_BATCH: Final = 2_000
_READ: Final = 100
_IDS: Final = sa.ARRAY(sa.BigInteger())


@dataclass(frozen=True, slots=True)
class IndexedPayloads(Result):
    """The result of `index_payloads`.

    Attributes:
        rows: the number of spans, events and log records with values in frames whose words were
            indexed. Those of a trace and hour are indexed together, also if only some are new.
        merged_segments: the number of segments that were made of smaller ones, or without what was
            deleted.
        removed_segments: the number of segments whose frames are gone.
        is_complete: whether nothing is left to do.
    """

    rows: int = 0
    merged_segments: int = 0
    removed_segments: int = 0
    is_complete: bool = True


def index_payloads(run: Run) -> IndexedPayloads:
    """Index the words of new payload frames, so that text searches need not open them.

    A search opens the frames that have not been indexed, the newest first. Words of deleted values
    are removed from the index. Writers and readers do not wait. When the deadline is over, the rest
    is left to the next run.

    Raises:
        StorageError: PostgreSQL could not be used.
    """
    rows = merged = removed = 0
    engine = run.source.engine
    with translated():
        with engine.begin() as connection:
            removed = without_frames(connection)
        while not run.deadline.is_over:
            with engine.begin() as connection:
                some = _index_some(connection)
                segments = () if some.notes else segments_to_merge(connection, run.now)
                merge_segments(connection, segments)
            if not some.notes and not segments:
                return IndexedPayloads(rows, merged, removed)
            rows += some.rows
            merged += some.rewritten + bool(segments)
            run.progress(f"indexed {counted(rows, 'row')}, merged {counted(merged, 'segment')}")
    return IndexedPayloads(rows, merged, removed, is_complete=False)


class _Some(NamedTuple):
    """The notes that were taken, the rows that were indexed, the segments that lost hours."""

    notes: int
    rows: int
    rewritten: int


def _index_some(connection: sa.Connection) -> _Some:
    """Index some of the noted hours."""
    noted = connection.execute(
        sa.select(_UNINDEXED)
        .order_by(_UNINDEXED.c.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    keys = {_noted_key(row) for row in noted}
    lost = {_noted_key(row) for row in noted if row.lost_values}
    indexed: dict[HourKey, int] = {}
    by_day: dict[Any, set[HourKey]] = defaultdict(set)
    for key in keys:
        by_day[key.start_time.date()].add(key)
    # Before, because these hours may be indexed anew.
    rewritten = _forget(connection, lost)
    for of_day in by_day.values():
        indexed |= _index(connection, of_day)
    rewritten += _forget(connection, keys - indexed.keys() - lost)
    _delete_notes(connection, [row.id for row in noted])
    return _Some(len(noted), sum(indexed.values()), rewritten)


def _forget(connection: sa.Connection, keys: Collection[HourKey]) -> int:
    """Remove hours of traces from the segments that have some; return how many these are."""
    segments = holding(connection, keys)
    for segment in segments:
        merge_segments(connection, [segment], without=keys)
    return len(segments)


def _delete_notes(connection: sa.Connection, ids: list[int]) -> None:
    this = _UNINDEXED.c.id == sa.func.any(sa.literal(ids, _IDS))
    connection.execute(sa.delete(_UNINDEXED).where(this))


def _index(connection: sa.Connection, keys: Collection[HourKey]) -> dict[HourKey, int]:
    """Write a segment with these hours of one day.

    Returns:
        Those that still have frames, with the number of their rows.
    """
    ordinals: dict[bytes, list[int]] = defaultdict(list)
    indexed: dict[HourKey, int] = {}
    frequent: set[bytes] = set()
    for key, row_count, words in _words(connection, keys):
        ordinal = len(indexed)
        for word in words - frequent:
            ordinals[word].append(ordinal)
        indexed[key] = row_count
        if not ordinal % _READ:
            frequent = {w for w, found in ordinals.items() if is_frequent(len(found), len(keys))}
    if indexed:
        count = len(indexed)
        frequent |= {word for word, found in ordinals.items() if is_frequent(len(found), count)}
        postings = (
            (word, b"" if word in frequent else encoded(found))
            for word, found in sorted(ordinals.items())
        )
        write_segment(connection, list(indexed), postings)
    return indexed


def _words(
    connection: sa.Connection, keys: Collection[HourKey]
) -> Iterator[tuple[HourKey, int, set[bytes]]]:
    """The hours that still have frames, in order of time: the number of rows, and their words."""
    in_order = sorted(keys, key=_by_time)
    for start in range(0, len(in_order), _READ):
        some = in_order[start : start + _READ]
        rows, logs = framed_rows(connection, some), framed_logs(connection, some)
        for key in some:
            if rows[key] or logs[key]:
                words = words_of_values(row.content for row in rows[key])
                words |= words_of_texts(text for log in logs[key] for text in _texts(log))
                yield key, len(rows[key]) + len(logs[key]), words


def _texts(log: WholeLog) -> Iterator[bytes]:
    """What a search finds in a log record beside a text body, or together with it, as JSON."""
    yield log.attributes
    if log.body_json is not None:
        yield log.body_json
    if log.body is not None:
        yield orjson.dumps(log.body)


def _noted_key(row: Any) -> HourKey:
    return HourKey(row.trace_id, row.start_time.astimezone(UTC))


def _by_time(key: HourKey) -> tuple[datetime, Any]:
    return key.start_time, key.trace_id
