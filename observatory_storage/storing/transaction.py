"""The steps around a write transaction: its pool, partitions, retries and errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar, cast, get_args

from sqlalchemy import Connection, Engine
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from observatory_storage import errors
from observatory_storage.backoff import backoff
from observatory_storage.commits import Commits
from observatory_storage.config import PayloadMode, StorageConfig
from observatory_storage.errors import StorageError, ValidationError, translated
from observatory_storage.layout import Partitions
from observatory_storage.operations import Hooks
from observatory_storage.payloads import hours_of, zstd_module
from observatory_storage.pricing import PriceBook
from observatory_storage.rows import Row, Rules
from observatory_storage.storing.upsert import is_text_error
from observatory_storage.tables import (
    EVENTS,
    LOG_FRAMES,
    LOGS,
    PAYLOAD_FRAMES,
    SPANS,
    table_named,
)

__all__ = [
    "PartitionMissing",
    "Source",
    "ensure_partitions",
    "payload_mode",
    "payload_threshold",
    "retrying",
    "source_of",
    "write_with_partitions",
    "writing",
]

_CHECK_VIOLATION: Final = "23514"
_T = TypeVar("_T")


class Source(Protocol):
    """The attributes of a pool that writing needs."""

    @property
    def engine(self) -> Engine: ...
    @property
    def read_engine(self) -> Engine: ...
    @property
    def schema(self) -> str: ...
    @property
    def partitions(self) -> Partitions: ...
    @property
    def config(self) -> StorageConfig: ...
    @property
    def rules(self) -> Rules | None: ...
    @property
    def prices(self) -> PriceBook: ...
    @property
    def commits(self) -> Commits: ...
    @property
    def hooks(self) -> Hooks: ...
    def lsn_after_flush(self, timeout: float | None = None) -> str | None: ...


def source_of(field: str, value: Any) -> Source:
    """Check the pool that a writer was given, and return it.

    Raises:
        ValidationError: it is not a pool.
    """
    if not hasattr(value, "partitions"):
        # The value is not shown: it may be a URL with a password.
        raise ValidationError(field, type(value), "must be a StoragePool")
    return cast(Source, value)


def payload_mode(source: Source, mode: Any) -> PayloadMode | None:
    """Check the mode in which a writer stores large values, and return it.

    Args:
        source: the pool.
        mode: what the writer was given; None is as configured.

    Raises:
        ValidationError: it is no mode.
        ConfigError: values shall be compressed, and Zstandard is not installed.
    """
    modes = get_args(PayloadMode)
    if mode is not None and mode not in modes:
        raise ValidationError("payloads", mode, f"must be one of {', '.join(modes)}, or None")
    if payload_threshold(source, mode) is not None:
        zstd_module()
    return cast("PayloadMode | None", mode)


def payload_threshold(source: Source, mode: PayloadMode | None = None) -> int | None:
    """The bytes of attributes that a row keeps; None if it keeps all.

    Args:
        source: the pool.
        mode: the mode of a writer; None is as configured.
    """
    payloads = source.config.payloads
    return payloads.threshold_bytes if (mode or payloads.mode) == "compressed" else None


class PartitionMissing(StorageError):
    """A partition was dropped between the check and the write."""

    retryable = True


def ensure_partitions(
    source: Source,
    rows: Sequence[Row],
    within: Connection | None = None,
    *,
    framed: bool = False,
) -> None:
    """Create the partitions that the rows need, in a separate transaction.

    Args:
        source: the pool.
        rows: prepared rows.
        within: a connection that the caller holds; see `Partitions.ensure_within`.
        framed: whether large values are moved to payload frames.

    Raises:
        ValidationError: a row names a table that is not in the registry.
        StorageError: the partitions could not be created.
    """
    moments: dict[str, list[Any]] = defaultdict(list)
    tables = {row.table for row in rows}
    positions = {name: table_named(name).partition_position for name in tables}
    for row in rows:
        position = positions[row.table]
        if position is not None:
            moments[row.table].append(row.values[position])
            if row.events:
                moments[EVENTS.name].append(row.values[position])
    if framed:
        starts = moments.get(SPANS.name, []) + moments.get(EVENTS.name, [])
        moments[PAYLOAD_FRAMES.name] = sorted(hours_of(starts))
        moments[LOG_FRAMES.name] = sorted(hours_of(moments.get(LOGS.name, [])))
    for table_name, needed in moments.items():
        if within is None:
            source.partitions.ensure(table_name, needed)
        else:
            source.partitions.ensure_within(within, table_name, needed)


def write_with_partitions(
    source: Source,
    rows: Sequence[Row],
    write: Callable[[Sequence[Row]], None],
    within: Connection | None = None,
    before_repeat: Callable[[], None] = lambda: None,
    *,
    framed: bool = False,
) -> int:
    """Make the partitions of the rows, and write the rows.

    Args:
        source: the pool.
        rows: prepared rows.
        write: writes them inside `writing`.
        within: see `ensure_partitions`.
        before_repeat: is called if the rows have to be written once more.
        framed: see `ensure_partitions`.

    Returns:
        How many texts had to be repaired.
    """
    ensure_partitions(source, rows, within, framed=framed)
    try:
        return _repairing(rows, write)
    except PartitionMissing:
        # Either a partition was dropped, or a check is violated whose name a proxy or an extension
        # has removed from the error. If it fails again with all partitions there, it is a check.
        before_repeat()
        ensure_partitions(source, rows, within, framed=framed)
        try:
            return _repairing(rows, write)
        except PartitionMissing as error:
            cause = error.__cause__ or error
            raise (errors.translate(cause) or error) from cause


def _repairing(rows: Sequence[Row], write: Callable[[Sequence[Row]], None]) -> int:
    """Write the rows. If PostgreSQL or psycopg refuses text, repair it and write once more.

    Checking all text beforehand would slow down every clean row.

    Returns:
        The number of texts that were repaired.
    """
    try:
        write(rows)
    except Exception as error:  # text that cannot be stored; other errors are raised
        if not is_text_error(error.__cause__ or error):
            raise
        cleaned = [row.with_clean_text() for row in rows]
        write(cleaned)
        return sum(new.repairs - old.repairs for old, new in zip(rows, cleaned, strict=True))
    return 0


@contextmanager
def writing(source: Source) -> Iterator[None]:
    """Translate errors. If a partition is missing, look up partitions before the next attempt."""
    try:
        with translated():
            yield
    except StorageError as error:
        cause = error.__cause__
        if (
            cause is not None
            and errors.sqlstate_of(cause) == _CHECK_VIOLATION
            and _is_lacking(error)
        ):
            source.partitions.forget()
            raise PartitionMissing from cause
        raise


def _is_lacking(error: StorageError) -> bool:
    """Whether a row that was refused may lack a partition: no constraint is named.

    In a language that is not English, and without the fields of the error, a constraint may be
    taken for a missing partition. Then the rows are written once more.
    """
    return isinstance(error, ValidationError) and error.field == "row"


def retrying(
    config: StorageConfig,
    action: Callable[[], _T],
    *,
    before_sleep: Callable[[RetryCallState], None] | None = None,
) -> _T:
    """Repeat the action after transient errors, as often as configured."""
    retry = config.retry
    attempts = Retrying(
        stop=stop_after_attempt(retry.max_attempts),
        wait=backoff(retry),
        retry=retry_if_exception(lambda e: isinstance(e, StorageError) and e.retryable),
        before_sleep=before_sleep,
        reraise=True,
    )
    return attempts(action)
