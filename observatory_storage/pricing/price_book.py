"""The prices of a pool, kept in memory: writers ask for them with every batch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.errors import StorageError, sqlstate_of, translated
from observatory_storage.pricing.price_table import PriceTable
from observatory_storage.pricing.stored_prices import PRICES, read_prices
from observatory_storage.processes import PerProcess

__all__ = ["PriceBook"]

_SECONDS_KEPT: Final = 60.0
_NO_TABLE: Final = "42P01"
_log = logging.getLogger(__name__)


class PriceBook:
    """The stored prices, read when they are first needed and again once a minute.

    Thread-safe, and usable after a fork. While one thread reads the prices again, the others use
    those that are known.

    Args:
        engine: the engine of the pool.
        enabled: False if costs are not computed; then nothing is read.
    """

    def __init__(self, engine: sa.Engine, *, enabled: bool = True) -> None:
        self._engine = engine
        self._enabled = enabled
        self._lock = PerProcess(threading.Lock)
        self._table: PriceTable | None = None
        self._state: Any = None
        self._is_read = False
        self._until = 0.0
        self._changes = 0

    def table(self, within: sa.Connection | None = None) -> PriceTable | None:
        """The prices to compute costs with; None if there are none.

        Call it before a connection of the pool is taken, or pass the connection.

        Args:
            within: a connection that the caller holds, on which they are read.

        Raises:
            StorageError: the database could not be reached.
        """
        if time.monotonic() < self._until or not self._enabled:
            return self._table
        if within is not None:
            # Another thread that reads them may be waiting for this connection.
            self._read(within)
            return self._table
        lock = self._lock.get()
        # The first time, all threads wait for the prices. Later, one of them reads them again.
        if not lock.acquire(blocking=not self._is_read):
            return self._table
        try:
            if time.monotonic() >= self._until:
                self._read(None)
        finally:
            lock.release()
        return self._table

    def known(self) -> tuple[bool, PriceTable | None]:
        """Whether the prices have been read, and the prices; it does not ask the database."""
        return self._is_read or not self._enabled, self._table

    def current(self) -> PriceTable | None:
        """The prices as they are stored now, also if writers do not use them; None without any.

        Raises:
            StorageError: the database could not be used.
        """
        with translated(), self._engine.connect() as connection:
            prices = read_prices(connection)
        return PriceTable(prices) if prices else None

    def forget(self) -> None:
        """Read the prices again before they are used: they have changed."""
        self._changes += 1
        self._is_read = False
        self._until = 0.0

    def _read(self, within: sa.Connection | None) -> None:
        changes = self._changes
        try:
            with translated(), self._connection(within) as connection:
                state = tuple(connection.execute(_STATE).one())
                if state != self._state:
                    prices = read_prices(connection)
                    self._table = PriceTable(prices) if prices else None
                    self._state = state
        except StorageError as error:
            if error.retryable:
                raise
            # Telemetry is worth more than its costs, which can be computed later. Without the
            # tables of this package, writing says what is missing.
            cause = error.__cause__
            if cause is None or sqlstate_of(cause) != _NO_TABLE:
                _log.warning("costs are not computed, because prices cannot be read: %s", error)
        if changes == self._changes:
            self._is_read = True
            self._until = time.monotonic() + _SECONDS_KEPT

    @contextmanager
    def _connection(self, within: sa.Connection | None) -> Iterator[sa.Connection]:
        if within is None:
            with self._engine.connect() as connection:
                yield connection
        else:
            with within.begin_nested():
                yield within


_STATE: Final = sa.select(
    sa.func.count(),
    # Also changes that were made by hand show in it.
    sa.func.sum(sa.func.hashtextextended(sa.cast(sa.func.row(*PRICES.c), sa.Text), 0)),
).select_from(PRICES)
