"""What metrics tell of a store as it is: its connections and buffers, its partitions, its upkeep.

The database is asked within a bounded time, and seldom, so that a scrape never waits for a server
that is away.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import sqlalchemy as sa

from observatory_storage.bounded_pool import acquire_within
from observatory_storage.engine import single_attempt
from observatory_storage.errors import translated
from observatory_storage.health import PoolStats, check_health
from observatory_storage.models import MaintenanceRun
from observatory_storage.operations import unobserved
from observatory_storage.processes import PerProcess
from observatory_storage.replication_lag import Lag, LagMeter
from observatory_storage.storing import Source
from observatory_storage.writers.process_hooks import buffered_rows

__all__ = ["Observed", "ProcessState", "StateReader", "StoreState", "process_state"]

logger = logging.getLogger(__name__)

# Less than the whole time, so that the server's or the pool's own error is logged.
_OF_TIMEOUT: Final = 0.8
_PARTITIONS: Final = sa.text("""
    SELECT parent.relname, count(*)
      FROM pg_catalog.pg_inherits
      JOIN pg_catalog.pg_class AS parent ON parent.oid = inhparent
      JOIN pg_catalog.pg_namespace AS place ON place.oid = parent.relnamespace
     WHERE place.nspname = :schema AND parent.relkind = 'p'
     GROUP BY parent.relname
     ORDER BY parent.relname
""")
_LAST_RUN: Final = (
    sa.select(
        sa.func.extract("epoch", sa.func.now() - MaintenanceRun.finished_at).label("age"),
        MaintenanceRun.steps,
    )
    .where(MaintenanceRun.finished_at.is_not(None))
    .order_by(MaintenanceRun.started_at.desc())
    .limit(1)
)


class Observed(Source, Protocol):
    """The attributes of a pool that its metrics need."""

    @property
    def has_read_server(self) -> bool: ...
    @property
    def lag_meter(self) -> LagMeter: ...
    def stats(self) -> PoolStats: ...


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The connections and buffers of this process, over all pools.

    Attributes:
        idle, active: open connections.
        limit: the most connections; None if a pool has no limit.
        buffered: the rows in buffers of writers, by signal.
    """

    idle: int
    active: int
    limit: int | None
    buffered: Mapping[str, int]


def process_state(pools: Iterable[Observed]) -> ProcessState:
    """Count the connections and the buffered rows of this process."""
    idle = active = 0
    limit: int | None = 0
    buffered: Counter[str] = Counter()
    for pool in pools:
        stats = pool.stats()
        for each in (stats, stats.read):
            if each is not None:
                idle, active = idle + each.idle, active + each.active
                limit = None if limit is None or each.max is None else limit + each.max
        buffered.update(buffered_rows(pool))
    return ProcessState(idle, active, limit, buffered)


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the database says of the store.

    Attributes:
        partitions: the number of partitions of each table.
        failed_steps: the steps that failed in the last run of maintenance that ended; None if none
            has.
        lag: how far the read server is behind; not known if there is none, or if it did not answer.
    """

    partitions: Mapping[str, int]
    failed_steps: int | None
    _ended: float | None
    lag: Lag

    @property
    def maintenance_age_secs(self) -> float | None:
        """The seconds since the last run of maintenance ended; None if none has."""
        return None if self._ended is None else time.monotonic() - self._ended

    @classmethod
    def of(cls, source: Observed, timeout_secs: float) -> StoreState:
        """Ask the database, without retries.

        Raises:
            StorageError: it did not answer in time.
        """
        deadline = time.monotonic() + timeout_secs
        patience = timeout_secs * _OF_TIMEOUT
        with (
            unobserved(),
            translated(),
            single_attempt(),
            acquire_within(patience),
            source.engine.connect() as connection,
        ):
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(patience * 1000)}")
            partitions = connection.execute(_PARTITIONS, {"schema": source.schema})
            numbers = {str(name): int(number) for name, number in partitions}
            last = connection.execute(_LAST_RUN).one_or_none()
        with unobserved():
            lag = _lag(source, (deadline - time.monotonic()) * _OF_TIMEOUT)
        if last is None:
            return cls(numbers, None, None, lag)
        failed = sum(step.get("error") is not None for step in last.steps)
        return cls(numbers, failed, time.monotonic() - float(last.age), lag)


def _lag(source: Observed, timeout_secs: float) -> Lag:
    """How far the read server is behind; not known if it does not answer in time."""
    if not source.has_read_server:
        return Lag(None, None)
    report = check_health(source.engine, None, timeout_secs, source.read_engine, source.lag_meter)
    assert report.read is not None
    return Lag(report.read.lag_bytes, report.read.lag_secs)


@dataclass
class _Reading:
    """The last answer of the database, and the thread that asks for the next one."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None
    state: StoreState | None = None
    read_at: float | None = None


class StateReader:
    """Reads the state of a store in a thread, and keeps it for a while.

    Args:
        source: the pool, which is not kept alive.
        refresh_secs: how long an answer is kept.
        timeout_secs: how long to wait for an answer.
        failed: is called when there was no answer.
    """

    def __init__(
        self,
        source: Observed,
        refresh_secs: float,
        timeout_secs: float,
        failed: Callable[[], object],
    ) -> None:
        self._source = weakref.ref(source)
        self._refresh_secs = refresh_secs
        self._timeout_secs = timeout_secs
        self._failed = failed
        self._reading = PerProcess(_Reading)

    def read(self) -> StoreState | None:
        """The state of the store; None if the database did not answer in time."""
        source = self._source()
        if source is None:
            return None
        reading = self._reading.get()
        with reading.lock:
            now = time.monotonic()
            if reading.read_at is not None and now - reading.read_at < self._refresh_secs:
                return reading.state
            # A thread that still waits for a server that is away is waited for again, and no
            # second one is started.
            if reading.thread is None or not reading.thread.is_alive():
                reading.state = None
                reading.thread = threading.Thread(
                    target=self._ask, args=(source, reading), name="observatory-state", daemon=True
                )
                reading.thread.start()
            thread = reading.thread
        thread.join(self._timeout_secs)
        if thread.is_alive() or reading.state is None:
            self._failed()
            return None
        return reading.state

    def _ask(self, source: Observed, reading: _Reading) -> None:
        try:
            state = StoreState.of(source, self._timeout_secs)
        except Exception as error:  # noqa: BLE001 - a scrape goes on without these metrics
            logger.warning("the state of the store is not known: %s", error)
            return
        reading.state, reading.read_at = state, time.monotonic()
