"""One run of maintenance: all steps in their order, by one process at a time.

Each step does its work in pieces that stand by themselves, so a run may be killed anywhere: the
next one goes on. What a run did is stored in `maintenance_runs` after each step.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from observatory_storage.errors import PoolError, StorageError, translated
from observatory_storage.layout import advisory_key
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import MaintenanceRun
from observatory_storage.serialization import Result
from observatory_storage.storing.transaction import Source

__all__ = [
    "MaintenanceError",
    "MaintenanceReport",
    "MaintenanceStep",
    "Step",
    "last_runs",
    "run_steps",
]

logger = logging.getLogger(__name__)

Step = tuple[str, Callable[[Run], Result]]
"""The name of a step, and the function that does its work."""

_KEPT_FOR: Final = timedelta(days=30)
# One holds the lock of maintenance, and a step that builds indexes uses two.
_CONNECTIONS: Final = 3


@dataclass(frozen=True, slots=True)
class MaintenanceStep(Result):
    """What one step of a run did.

    Attributes:
        name: the name of the step, such as ``close_partitions``.
        duration_secs: how long it took.
        result: what it did, as the step reports it; None if it failed.
        error: why it failed. The other steps ran all the same.
    """

    name: str
    duration_secs: float
    result: Result | None = None
    error: StorageError | None = None


@dataclass(frozen=True, slots=True)
class MaintenanceReport(Result):
    """The result of `StoragePool.maintain`.

    Attributes:
        started_at: when the run began.
        finished_at: when it ended.
        steps: what its steps did, in their order.
        left: the names of the steps for which no time was left. The next run does them.
        is_skipped: whether nothing was done, because another run was under way, or because the
            last one was too recent.
    """

    started_at: datetime
    finished_at: datetime
    steps: tuple[MaintenanceStep, ...] = ()
    left: tuple[str, ...] = ()
    is_skipped: bool = False


class MaintenanceError(StorageError):
    """Steps of a maintenance run failed.

    Attributes:
        report: what the run did. The error of a failed step is in its `MaintenanceStep.error`.
    """

    def __init__(self, report: MaintenanceReport) -> None:
        self.report = report
        failed = [(step.name, step.error) for step in report.steps if step.error is not None]
        self.retryable = all(error.retryable for _, error in failed)
        super().__init__("; ".join(f"{name}: {error}" for name, error in failed))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.report,)


def run_steps(
    run: Run, steps: Sequence[Step], *, min_interval: timedelta | None = None
) -> MaintenanceReport:
    """Run the steps, unless another process is running them.

    A step that fails does not keep the others from running. When the deadline is over, the
    remaining steps are left for the next run.

    Args:
        min_interval: skip the run if the last one began less than this long ago.

    Raises:
        MaintenanceError: steps failed; the others ran.
        StorageError: the database could not be used.
    """
    started = datetime.now(UTC)
    with _only_one(run.source) as is_alone:
        if not is_alone or (min_interval is not None and _ran_within(run.source, min_interval)):
            return MaintenanceReport(started, datetime.now(UTC), is_skipped=True)
        ordered = _left_ones_first(run.source, steps)
        stored = _StoredRun(run, started)
        done: list[MaintenanceStep] = []
        left = [name for name, _ in ordered]
        for name, work in ordered:
            if run.deadline.is_over:
                break
            done.append(_done(run, name, work))
            left.remove(name)
            stored.update(done)
        report = MaintenanceReport(started, datetime.now(UTC), tuple(done), tuple(left))
        stored.finish(report)
    if any(step.error for step in report.steps):
        error = MaintenanceError(report)
        raise error from next(step.error for step in report.steps if step.error)
    return report


def last_runs(source: Source, limit: int = 1) -> list[MaintenanceRun]:
    """The newest runs, the last one first."""
    newest = (
        sa.select(MaintenanceRun.__table__)
        .order_by(MaintenanceRun.started_at.desc(), MaintenanceRun.id)
        .limit(limit)
    )
    with translated(), source.engine.connect() as connection:
        rows = connection.execute(newest).mappings()
        return [MaintenanceRun.of_columns(dict(row)) for row in rows]


def _left_ones_first(source: Source, steps: Sequence[Step]) -> list[Step]:
    """The steps, beginning with those for which the last run had no time.

    Otherwise a step that always takes all of the time would keep the others from ever running.
    """
    done = {step["name"] for last in last_runs(source) for step in last.steps}
    return sorted(steps, key=lambda step: bool(done) and step[0] in done)


def _done(run: Run, name: str, work: Callable[[Run], Result]) -> MaintenanceStep:
    began = time.perf_counter()
    try:
        with run.source.hooks.measure("maintain", method=name) as measured:
            result = work(run)
            measured.rows = getattr(result, "rows", 0)
    except StorageError as error:
        logger.warning("maintenance: %s failed: %s", name, error)
        return MaintenanceStep(name, time.perf_counter() - began, error=error)
    return MaintenanceStep(name, time.perf_counter() - began, result=result)


@contextmanager
def _only_one(source: Source) -> Iterator[bool]:
    """Hold the lock of maintenance; whether it was free.

    The lock belongs to an open transaction rather than to a session: pgbouncer in transaction mode
    can hand the next transaction to another session. The transaction has no snapshot, so neither
    VACUUM nor CREATE INDEX CONCURRENTLY waits for it.
    """
    pool = source.engine.pool
    if isinstance(pool, QueuePool) and 0 <= pool.size() + pool._max_overflow < _CONNECTIONS:
        raise PoolError(
            f"maintenance needs {_CONNECTIONS} connections at a time, and the pool has fewer:"
            " raise pool.max_connections",
            retryable=False,
        )
    key = advisory_key("maintenance", source.schema)
    with translated(), source.engine.connect() as connection:
        is_free = connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key)))
        # A run may take longer than the server lets a transaction wait. A statement after the
        # query also lets go of the query's snapshot.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield bool(is_free)


def _ran_within(source: Source, interval: timedelta) -> bool:
    recent = sa.exists().where(MaintenanceRun.started_at > sa.func.now() - interval)
    with translated(), source.engine.connect() as connection:
        return bool(connection.scalar(sa.select(recent)))


class _StoredRun:
    """The row of `maintenance_runs` for this run, written after each step."""

    def __init__(self, run: Run, started: datetime) -> None:
        self._engine = run.source.engine
        self._id = uuid.uuid4()
        row = {
            "id": self._id,
            "started_at": started,
            "as_of": run.now,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        with translated(), self._engine.begin() as connection:
            connection.execute(
                sa.delete(MaintenanceRun).where(MaintenanceRun.started_at < started - _KEPT_FOR)
            )
            connection.execute(sa.insert(MaintenanceRun), row)

    def update(self, done: Sequence[MaintenanceStep], **values: Any) -> None:
        values["steps"] = [step.to_dict(json=True) for step in done]
        this = sa.update(MaintenanceRun).where(MaintenanceRun.id == self._id)
        with translated(), self._engine.begin() as connection:
            connection.execute(this.values(values))

    def finish(self, report: MaintenanceReport) -> None:
        errors = (f"{step.name}: {step.error}" for step in report.steps if step.error)
        self.update(report.steps, finished_at=report.finished_at, error=next(errors, None))
