"""The settings of a buffered writer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from observatory_storage.config import PayloadMode, PostgresConfig
from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.storing import Method
from observatory_storage.writers.tail_sampling import TailSampling

__all__ = ["Redact", "WriterConfig", "largest_batch"]

OnFull = Literal["block", "raise", "drop"]
Redact = Callable[[dict[str, Any]], Mapping[str, Any] | None]
OnRejected = Callable[[dict[str, Any], StorageError], None]
_DEFAULT_BATCH: Final = 1000
_MAX_BATCH: Final = 100_000
_MAX_INT64: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class WriterConfig:
    """How a buffered writer collects and flushes.

    Attributes:
        batch_size: the number of rows, events included, at which a flush begins. It is also the
            maximum of one transaction. While no flush is running, a flush begins at 1,000 rows.
            In the layout "citus", a batch of 1,000 rows or more may grow to that many for each
            shard while nobody could write it.
        flush_interval_secs: the seconds after which buffered rows are flushed in any case; None to
            flush only by size.
        max_concurrency: the maximum number of parallel flushes. Each uses its own connection.
            Batches that contain versions of the same row are always written one after the other.
        max_buffered: the maximum number of buffered rows, including events and rows that are being
            flushed. A single span with more events than that is taken if the buffer is empty.
        on_full: what a write does when the buffer is full. "block" waits until there is room.
            "raise" raises `StorageError`; the rows before it in a list are buffered. "drop" drops
            the row and counts it. A flush begins in any case.
        method: "copy", "insert", or "auto", which uses INSERT for a single row and COPY for more.
        redact: called with each row before it is buffered. The row is a dict by column names. The
            function returns the row to write, or None to drop the row. The dict is new, but its
            values belong to the caller: copy a value before you change it.
        on_rejected: called with each row that the database refused for its data, and with the
            error, in the thread that wrote the row. Without it, `flush` raises `BatchError` after
            the other rows are committed.
        spool_dir: a directory on a local disk for rows that cannot be written while the database is
            away, or before `close` returns. They are written later, also by another process.
            Several writers and processes may share the directory. None is as the section `spool` of
            the pool's configuration says, by default no spool.
        spool_max_bytes: the maximum total size of the files in this directory. It has no effect
            without `spool_dir`.
        payloads: where large values of spans and events are stored: "inline" in their rows,
            "compressed" beside them; None is as ``payloads.mode`` of the pool's configuration says.
        sampling: which traces a `TraceWriter` keeps; None is as the section `sampling` of the
            pool's configuration says, by default all. Other writers ignore it.

    Raises:
        ValidationError: a setting is out of range.
    """

    batch_size: int = _DEFAULT_BATCH
    flush_interval_secs: float | None = 5.0
    max_concurrency: int = 1
    max_buffered: int = 100_000
    on_full: OnFull = "block"
    method: Method = "auto"
    redact: Redact | None = None
    on_rejected: OnRejected | None = None
    spool_dir: str | os.PathLike[str] | None = None
    spool_max_bytes: int = 2**30
    payloads: PayloadMode | None = None
    sampling: TailSampling | None = None

    def __post_init__(self) -> None:
        _whole("batch_size", self.batch_size, _MAX_BATCH)
        _whole("max_concurrency", self.max_concurrency, 64)
        _whole("max_buffered", self.max_buffered, 2**31)
        _whole("spool_max_bytes", self.spool_max_bytes, _MAX_INT64)
        if self.spool_dir is not None:
            _path("spool_dir", self.spool_dir)
        if self.max_buffered < self.batch_size:
            raise ValidationError(
                "max_buffered", self.max_buffered, f"must be at least batch_size={self.batch_size}"
            )
        if self.sampling is not None and not isinstance(self.sampling, TailSampling):
            raise ValidationError("sampling", self.sampling, "must be TailSampling, or None")
        interval = self.flush_interval_secs
        if interval is not None and not (_is_number(interval) and interval > 0):
            raise ValidationError(
                "flush_interval_secs", interval, "must be a number above 0, or None"
            )
        for name, values in (
            ("on_full", get_args(OnFull)),
            ("method", get_args(Method)),
            ("payloads", (*get_args(PayloadMode), None)),
        ):
            if getattr(self, name) not in values:
                raise ValidationError(
                    name, getattr(self, name), f"must be one of {', '.join(map(str, values))}"
                )


def largest_batch(config: WriterConfig, server: PostgresConfig) -> int:
    """The maximum number of rows of one transaction while rows wait for another flush.

    Citus cuts each batch into a part for each shard, and each part costs what a small batch does.
    Who has set a smaller size than the default wants small transactions.
    """
    if server.layout == "plain" or config.batch_size < _DEFAULT_BATCH:
        return config.batch_size
    return min(config.batch_size * server.shard_count, config.max_buffered, _MAX_BATCH)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _whole(name: str, value: object, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
        raise ValidationError(name, value, f"must be an integer from 1 to {highest}")


def _path(name: str, value: object) -> None:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValidationError(name, value, "must be the path of a directory")
