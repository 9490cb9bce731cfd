"""What a pool does to what is stored: maintenance, settling usage, computing facts again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from observatory_storage.commits import Commits
from observatory_storage.config import StorageConfig
from observatory_storage.errors import ValidationError
from observatory_storage.layout import Partitions
from observatory_storage.operations import Hooks
from observatory_storage.pricing import PriceBook
from observatory_storage.rows import Rules
from observatory_storage.storing import (
    RefreshedFacts,
    SettledUsage,
    refresh_facts,
    settle_usage,
)

if TYPE_CHECKING:
    from observatory_storage.lifecycle.maintenance import MaintenanceReport

__all__ = ["PoolUpkeep"]


class PoolUpkeep:
    """The methods of a `StoragePool` that keep what is stored in order."""

    config: StorageConfig
    engine: sa.Engine
    read_engine: sa.Engine
    schema: str
    partitions: Partitions
    rules: Rules | None
    prices: PriceBook
    commits: Commits
    hooks: Hooks

    if TYPE_CHECKING:

        def lsn_after_flush(self, timeout: float | None = None) -> str | None: ...

    def maintain(
        self,
        for_secs: float | None = None,
        *,
        now: datetime | None = None,
        progress: Callable[[str], object] | None = None,
    ) -> MaintenanceReport:
        """Do what the store needs from time to time, as ``observatory-storage maintain`` does.

        Call it regularly, for example every minute, from cron, Celery beat or a thread; or switch
        ``maintenance.background`` on. Readers and writers go on meanwhile. If another process is
        maintaining the store, the call returns at once. It may be killed at any point: the next
        call goes on where it stopped.

        It needs three connections of the pool, and a role that owns the tables.

        Example::

            report = pool.maintain(for_secs=60)
            for step in report.steps:
                print(step.name, step.result)

        Args:
            for_secs: stop after about so many seconds. What is left is done by the next call. None
                is no bound.
            now: the time that ages are counted from. The default is that of the clock.
            progress: is called with lines that tell people what has been done.

        Raises:
            MaintenanceError: steps failed. All other steps ran; its ``report`` has both.
            ValidationError: ``now`` has no time zone, or ``for_secs`` is negative or no number.
            PoolError: the pool has fewer than three connections.
            StorageError: PostgreSQL could not be used.
        """
        return self._run_steps(for_secs, now, progress)

    def settle_usage(self, max_traces: int | None = None) -> SettledUsage:
        """Let the usage of model calls count once that spans of several traces report.

        Within a trace, writers see to that. If several traces report a call, or a trace has more
        than 1,000 spans, its usage may count too often until the next settlement. A settlement also
        fills the user and session of spans whose log records came before them. Call this
        regularly, for example every minute. It looks only at traces that writers have marked, in
        transactions of a hundred traces, and can run beside writers and beside itself.

        Args:
            max_traces: settle at most so many traces; the others stay marked. None settles all
                traces that are marked now.

        Raises:
            StorageError: the database could not be used. What was settled before stays settled.
            ValidationError: ``max_traces`` is not a positive integer.
        """
        with self.hooks.measure("maintain", method="settle_usage") as measured:
            settled = settle_usage(self, max_traces)
            measured.rows = settled.traces
        return settled

    def refresh_facts(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        max_spans: int | None = None,
        progress: Callable[[RefreshedFacts], object] | None = None,
    ) -> RefreshedFacts:
        """Compute the LLM columns of stored spans again, from their attributes and events.

        Call this after an upgrade that reads more, and after a change of ``llm.aliases``. It covers
        the spans that start within [start, end), in transactions of at most 500. Usage is counted
        once again, and the totals of traces follow. Afterwards `settle_usage` sees to calls that
        several traces report.

        A column is overwritten only if the attributes or events tell a value for it. So a value
        that your application gave itself stays, unless an attribute contradicts it; and so does a
        value of an attribute that is not read any more. What is right already is not written, so
        repeating the call changes nothing. It can run beside writers and beside itself.

        Example::

            refreshed = pool.refresh_facts(datetime(2026, 7, 1, tzinfo=UTC))
            print(refreshed.spans, refreshed.changed_spans)

        Args:
            start: the first start; None begins with the oldest span.
            end: the first start that is left out; None is no bound.
            max_spans: stop after so many spans, and those that start at the same time as the last
                one. `RefreshedFacts.next_start` is the `start` of the next call.
            progress: is called after each transaction with what was done so far. If the call is
                interrupted, the last `next_start` continues it.

        Raises:
            StorageError: the database could not be used. What was refreshed before stays refreshed.
            ValidationError: a time has no time zone, ``end`` is before ``start``, or ``max_spans``
                is not a positive integer.
        """
        from observatory_storage.repositories.reading import validation

        first, last = validation.moment("start", start), validation.moment("end", end)
        if first is not None and last is not None and last < first:
            raise ValidationError("end", end, f"must not be before start={start}")
        with self.hooks.measure("maintain", method="refresh_facts") as measured:
            facts = refresh_facts(self, first, last, max_spans=max_spans, progress=progress)
            measured.rows = facts.spans
        return facts

    def maintain_in_turn(self) -> MaintenanceReport:
        """Maintain the store, unless another process did so within the interval."""
        settings = self.config.maintenance
        return self._run_steps(
            settings.max_duration.total_seconds(), min_interval=settings.interval * 0.9
        )

    def _run_steps(
        self,
        for_secs: float | None,
        now: datetime | None = None,
        progress: Callable[[str], object] | None = None,
        *,
        min_interval: timedelta | None = None,
    ) -> MaintenanceReport:
        # Most processes never maintain the store, so they start without what does.
        from observatory_storage.lifecycle.maintenance import run_steps
        from observatory_storage.lifecycle.run import Run
        from observatory_storage.lifecycle.steps import STEPS

        return run_steps(Run.of(self, for_secs, now, progress), STEPS, min_interval=min_interval)
