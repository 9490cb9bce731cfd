"""What a run of retention did, or would do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from observatory_storage.serialization import Result

__all__ = ["ArchiveFile", "ExpiredPartition", "Outcome", "RetentionResult"]

Outcome = Literal["dropped", "rewritten", "would go", "in use"]


@dataclass(frozen=True, slots=True)
class ExpiredPartition(Result):
    """A partition whose rows are older than they are kept.

    Attributes:
        table: the partitioned table, such as ``trace_spans``.
        partition: the partition, such as ``trace_spans_p20260131``.
        lower: the begin of its range; None if the range has no begin.
        upper: the end of its range.
        rows: its rows, as the planner estimates them.
        bytes: its size on disk with indexes.
        kept_rows: the rows of spared traces, which were moved into a new partition.
        outcome: ``"dropped"``; ``"rewritten"`` with the rows of spared traces; ``"would go"`` in a
            dry run; ``"in use"`` if other transactions did not let go of it, so that the next run
            goes on.
    """

    table: str
    partition: str
    lower: datetime | None
    upper: datetime
    rows: int
    bytes: int
    kept_rows: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ArchiveFile(Result):
    """A file that was written before the rows in it were deleted.

    Attributes:
        path: the file, in zstd, with one OTLP request in JSON on each line.
        items: the traces, log records or data points in it.
        bytes: its size.
    """

    path: Path
    items: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RetentionResult(Result):
    """The result of `apply_retention`.

    Attributes:
        dry_run: whether nothing was changed.
        partitions: the expired partitions, those that end first first.
        traces: the traces that were deleted, or would be.
        kept_traces: the traces that a pin or a rule spared although they are old enough.
        metrics: the definitions of metrics without data points that were deleted, or would be.
        archives: the files that were written.
        is_complete: False if the deadline came first; the next run goes on.
    """

    dry_run: bool = False
    partitions: tuple[ExpiredPartition, ...] = ()
    traces: int = 0
    kept_traces: int = 0
    metrics: int = 0
    archives: tuple[ArchiveFile, ...] = ()
    is_complete: bool = True
