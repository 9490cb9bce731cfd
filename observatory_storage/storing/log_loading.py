"""Writes log records, large values of which go into payload frames in the same transaction.

A record that exists already stays as it is, so no value ever leaves a frame here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from observatory_storage.payloads import OF_LOGS
from observatory_storage.storing.binary_copy import copy_parts
from observatory_storage.storing.conflict_rules import WITH_PAYLOADS, target_of
from observatory_storage.storing.frame_builder import FrameBuilder, load_frames, log_owner
from observatory_storage.storing.upsert import Loader
from observatory_storage.tables import LOGS, Values

__all__ = ["copy_logs", "write_logs"]

_LOGS, _FRAMED = target_of(LOGS), WITH_PAYLOADS[LOGS.name]
(_TRACE_ID,) = LOGS.positions("trace_id")
_KEY: Final = itemgetter(*LOGS.positions(*LOGS.key))


def write_logs(loader: Loader, logs: Sequence[Values], *, optimistic: bool = True) -> None:
    """Write log records; those that exist already stay.

    Args:
        loader: a loader on a connection in a transaction.
        logs: prepared log records.
        optimistic: False if these records have met a conflict already.
    """
    builder = FrameBuilder(loader.payload_threshold, OF_LOGS)
    if not any(map(builder.is_large_log, logs)):
        loader.upsert(_LOGS, [*logs], optimistic=optimistic)
        return
    unique = _LOGS.unique([*logs])

    def load() -> None:
        loader.load(_FRAMED, builder.logs(unique))
        load_frames(loader, builder)

    if optimistic and loader.attempt(_LOGS, load):
        return
    builder = FrameBuilder(loader.payload_threshold, OF_LOGS)
    loader.stage(_FRAMED, builder.logs(unique))
    key = (LOGS.table.c[name] for name in LOGS.key)
    new = {tuple(row) for row in loader.connection.execute(_FRAMED.merge.returning(*key))}
    loader.existing += len(unique) - len(new)
    loader.unstage(_FRAMED)
    load_frames(loader, builder, {log_owner(v) for v in unique if _KEY(v) in new and v[_TRACE_ID]})


def copy_logs(loader: Loader, parts: Iterable[Sequence[Values]]) -> None:
    """Copy new log records part by part, consumed while the COPY runs, and then their frames."""
    builder = FrameBuilder(loader.payload_threshold, OF_LOGS)
    values = parts if loader.payload_threshold is None else _framed(parts, builder)
    copy_parts(loader.connection, _LOGS, values, _LOGS.target, loader.sent, wider=_FRAMED)
    if builder.has_values:
        load_frames(Loader(loader.connection, "auto", loader.sent), builder)


def _framed(parts: Iterable[Sequence[Values]], builder: FrameBuilder) -> Iterator[Sequence[Values]]:
    """The parts, with payload columns from the first large value on. Most batches have none."""
    is_framed = False
    for part in parts:
        is_framed = is_framed or any(map(builder.is_large_log, part))
        yield builder.logs(part) if is_framed else part
        builder.end_part()
