"""Deletes what is older than it is kept: whole partitions, and traces with all their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.commits import Change
from observatory_storage.config import RetentionConfig
from observatory_storage.errors import Conflict, PoolError, translated
from observatory_storage.lifecycle import retention_plan as plan
from observatory_storage.lifecycle.archive import Archive, range_label
from observatory_storage.lifecycle.keep_rules import keep_filters
from observatory_storage.lifecycle.log_frame_expiry import has_records
from observatory_storage.lifecycle.metric_expiry import (
    count_pointless_metrics,
    delete_pointless_metrics,
)
from observatory_storage.lifecycle.partition_marks import Versions, marks
from observatory_storage.lifecycle.partition_removal import recover, remove, versions_in
from observatory_storage.lifecycle.partition_rewriting import rewrite
from observatory_storage.lifecycle.retention_results import (
    ArchiveFile,
    ExpiredPartition,
    Outcome,
    RetentionResult,
)
from observatory_storage.lifecycle.rollups import keep_rollups_before, refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.spared_rows import TRACE_TABLES, spared_traces
from observatory_storage.lifecycle.stored_partitions import (
    StoredPartition,
    bound,
    estimated_rows,
    is_one_leaving,
    partitions_of,
)
from observatory_storage.lifecycle.told_changes import telling_of
from observatory_storage.lifecycle.trace_archive import archive_and_delete
from observatory_storage.lifecycle.trace_expiry import CutoffCrossed, TraceExpiry
from observatory_storage.otlp.export import export_logs, export_metrics
from observatory_storage.repositories import LogFilters, TraceFilters
from observatory_storage.storing.transaction import Source
from observatory_storage.tables import LOG_FRAMES

__all__ = ["apply_retention"]

_ATTEMPTS: Final = 3
_ITEMS_OF_A_REQUEST: Final = 500


def apply_retention(
    run: Run, *, dry_run: bool = False, config: RetentionConfig | None = None
) -> RetentionResult:
    """Delete the rows that are older than they are kept.

    Whole partitions are detached and dropped, while others read and write. The traces whose spans
    are all in these partitions are deleted before. Traces that reach beyond them, pinned traces and
    traces that a rule keeps are spared with all their spans and events. A run that is killed leaves
    nothing behind that the next one does not complete.

    Args:
        run: the run of maintenance; rows are too old by its `now`.
        dry_run: change nothing, and return what would go.
        config: what is kept, and for how long. The default is that of the pool's configuration.

    Raises:
        ConfigError: a rule to keep traces is not valid, or the archive cannot be written to.
        Conflict: another process is applying retention, or locks were not free (retryable).
        PoolError: the pool has only one connection.
        StorageError: the role does not own the tables, the archive is full, or PostgreSQL cannot be
            reached.
    """
    settings = config or run.source.config.retention
    filters = keep_filters(settings.keep)
    if dry_run:
        return _planned(run, settings, filters)
    archive = Archive(settings.archive) if settings.archive is not None else None
    with _alone(run.source):
        return _Retention(run, settings, filters, archive).apply()


@contextmanager
def _alone(source: Source) -> Iterator[None]:
    """Hold the advisory lock of retention, on a connection that does nothing else."""
    if layout.is_of_one(source.engine.pool):
        raise PoolError(
            "retention needs two connections, but the pool has only one", retryable=False
        )
    with translated(), source.engine.connect() as connection:
        key = layout.advisory_key("retention", source.schema)
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key))):
            raise Conflict("another process is applying retention", retryable=True)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield


class _Retention:
    """One run: what it has done so far."""

    def __init__(
        self,
        run: Run,
        config: RetentionConfig,
        filters: list[TraceFilters],
        archive: Archive | None,
    ) -> None:
        self._run = run
        self._source = run.source
        self._config = config
        self._filters = filters
        self._archive = archive
        self._partitions: list[ExpiredPartition] = []
        self._archives: list[ArchiveFile] = []
        self._traces = self._kept = self._metrics = 0
        self._is_complete = True

    def apply(self) -> RetentionResult:
        recover(self._run)
        for signal, moment in plan.by_age(self._run, self._config).items():
            self._expire(signal, moment)
        largest = self._config.max_bytes
        if largest is not None:
            for signal, upper in plan.by_size(self._run):
                if self._is_over() or plan.total_bytes(self._source) <= largest:
                    break
                self._expire(signal, upper)
        return RetentionResult(
            partitions=tuple(self._partitions),
            traces=self._traces,
            kept_traces=self._kept,
            metrics=self._metrics,
            archives=tuple(self._archives),
            is_complete=self._is_complete,
        )

    def _is_over(self) -> bool:
        if self._run.deadline.is_over:
            self._is_complete = False
            return True
        return False

    def _expire(self, signal: str, moment: datetime) -> None:
        if signal == "traces" and not (self._keep_rollups(moment) and self._delete_traces(moment)):
            self._is_complete = False
            return
        # PostgreSQL detaches one partition of a table at a time. It may have spans that will be put
        # back, so their events must not go yet.
        if is_one_leaving(self._source, plan.TABLES_OF_SIGNAL[signal]):
            self._is_complete = False
            return
        for _ in range(_ATTEMPTS):  # what has been put back goes at the next attempt
            found = plan.expired(self._source, signal, moment)
            if not found:
                break
            for partition in found:
                if partition.table == LOG_FRAMES.name and has_records(self._source, partition):
                    continue  # They begin within an hour, or have just been put back.
                if self._is_over() or not self._remove(partition):
                    return
        if signal == "metrics" and not self._is_over():
            self._metrics += delete_pointless_metrics(self._run, moment)

    def _keep_rollups(self, moment: datetime) -> bool:
        """Bring the rollups of expired spans up to date, and have them stay as they are.

        False if no time is left for it. Rollups of spans that keep changing stay as they are too.
        """
        expired = plan.expired(self._source, "traces", moment)
        if not expired:
            return True
        cutoff = max(partition.upper for partition in expired)
        for is_last in (False, False, True):
            with translated(), self._source.engine.begin() as connection:
                if keep_rollups_before(connection, cutoff, even_if_stale=is_last):
                    return True
            refresh_rollups(self._run)
            if self._is_over():
                return False
        return True

    def _delete_traces(self, moment: datetime) -> bool:
        for _ in range(_ATTEMPTS):
            partitions = partitions_of(self._source, TRACE_TABLES)
            cutoff = plan.cutoff_of(partitions, "traces", moment)
            expiry = TraceExpiry(self._run, cutoff, self._filters)
            try:
                if self._archive is None:
                    return expiry.delete_all()
                return self._archive_traces(expiry, self._archive, partitions)
            except CutoffCrossed:
                continue
            finally:
                self._traces += expiry.deleted
                self._kept += expiry.kept
        return False

    def _archive_traces(
        self, expiry: TraceExpiry, archive: Archive, partitions: list[StoredPartition]
    ) -> bool:
        """Archive and delete range by range, so that the files have the ranges of partitions."""
        ends = {one.upper for one in partitions if one.upper <= expiry.cutoff} | {expiry.cutoff}
        lower = min((one.lower for one in partitions), default=expiry.cutoff)
        for upper in sorted(ends):
            files, is_done = archive_and_delete(expiry, archive, lower, upper)
            self._archives += files
            if not is_done:
                return False
            lower = upper
        expiry.kept = sum(map(len, expiry.batches(_ITEMS_OF_A_REQUEST)))
        return True

    def _remove(self, partition: StoredPartition) -> bool:
        """Remove a partition. False if others do not let go of it."""
        source = self._source
        with translated(), source.engine.begin() as connection:
            rows = estimated_rows(connection, source.schema, partition.name)
        with telling_of(source, Change(partition.table, partition.lower, partition.upper)):
            is_removed, kept = self._drop_or_rewrite(partition)
        outcome: Outcome = "in use" if not is_removed else "rewritten" if kept else "dropped"
        self._partitions.append(_shown(partition, rows, outcome, kept))
        self._is_complete &= is_removed
        return is_removed

    def _drop_or_rewrite(self, partition: StoredPartition) -> tuple[bool, int]:
        """Remove a partition; return whether it is removed, and how many rows were spared."""
        source = self._source
        if partition.table not in TRACE_TABLES:
            is_archived = self._archive is not None and partition.table != LOG_FRAMES.name
            archived = self._archived(partition) if is_archived else None
            return remove(self._run, partition, archived), 0
        with translated(), source.engine.connect() as connection:
            is_spared = bool(spared_traces(connection, partition.lower, partition.upper))
        if not is_spared:
            return remove(self._run, partition), 0
        rewritten = rewrite(self._run, partition)
        return rewritten is not None, rewritten or 0

    def _archived(self, partition: StoredPartition) -> Versions:
        """Archive the log records or data points of a partition, unless a killed run has done so.

        Returns their versions as they were before.
        """
        assert self._archive is not None
        source = self._source
        with translated(), source.engine.connect() as connection:
            versions = versions_in(connection, source.schema, partition.name)
            earlier = {mark.partition.oid: mark.archived for mark in marks(connection)}
        if not versions.rows or earlier.get(partition.oid) == versions:
            return versions
        range_ = bound(partition.lower), bound(partition.upper)
        if partition.table in plan.TABLES_OF_SIGNAL["logs"]:
            signal = "logs"
            filters = LogFilters(start_time=range_[0], end_time=range_[1])
            requests = export_logs(source, filters, batch_size=_ITEMS_OF_A_REQUEST)
        else:
            signal = "metrics"
            requests = export_metrics(
                source, start_time=range_[0], end_time=range_[1], batch_size=_ITEMS_OF_A_REQUEST
            )
        name = f"{signal}-{range_label(partition.lower, partition.upper)}"
        file = self._archive.write(name, requests, lambda: versions.rows)
        self._archives.append(file)
        self._run.progress(f"archived {partition.name} in {file.path.name}")
        return versions


def _shown(
    partition: StoredPartition, rows: int, outcome: Outcome, kept: int = 0
) -> ExpiredPartition:
    return ExpiredPartition(
        partition.table,
        partition.name,
        bound(partition.lower),
        partition.upper,
        rows,
        partition.bytes,
        kept,
        outcome,
    )


def _planned(run: Run, config: RetentionConfig, filters: list[TraceFilters]) -> RetentionResult:
    """What would go, as far as it can be told without doing it."""
    source = run.source
    moments = plan.by_age(run, config)
    found = {
        one.oid: one
        for signal, moment in moments.items()
        for one in plan.expired(source, signal, moment)
    }
    if config.max_bytes is not None:
        left = plan.total_bytes(source) - sum(one.bytes for one in found.values())
        for signal, upper in plan.by_size(run):
            if left <= config.max_bytes:
                break
            more = [one for one in plan.expired(source, signal, upper) if one.oid not in found]
            if more:
                moments[signal] = max(upper, moments.get(signal, upper))
            found |= {one.oid: one for one in more}
            left -= sum(one.bytes for one in more)
    result = RetentionResult(dry_run=True)
    if "traces" in moments:
        partitions = partitions_of(source, TRACE_TABLES)
        cutoff = plan.cutoff_of(partitions, "traces", moments["traces"])
        expiry = TraceExpiry(run, cutoff, filters, dry_run=True)
        is_done = expiry.delete_all()
        result = replace(
            result, traces=expiry.deleted, kept_traces=expiry.kept, is_complete=is_done
        )
    if "metrics" in moments:
        result = replace(result, metrics=count_pointless_metrics(run, moments["metrics"]))
    with translated(), source.engine.begin() as connection:
        shown = tuple(
            _shown(one, estimated_rows(connection, source.schema, one.name), "would go")
            for one in sorted(found.values())
        )
    return replace(result, partitions=shown)
