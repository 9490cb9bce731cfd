"""Runs a statement that PostgreSQL does not compile (``jit``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

__all__ = ["without_compiling"]

# Gives a row only if it changes something, so a server without `jit` needs no second statement.
_OFF = "SELECT set_config('jit', 'off', true) WHERE current_setting('jit') = 'on'"
_ON = "SELECT set_config('jit', 'on', true)"


@contextmanager
def without_compiling(connection: sa.Connection) -> Iterator[None]:
    """Within the block, the transaction compiles no statements.

    Every partition adds functions to compile, which takes longer than it saves. Afterwards the
    setting is as before, because the transaction may be a user's. It is local to the transaction,
    because a connection pooler shares sessions among clients.
    """
    changed = connection.exec_driver_sql(_OFF).first() is not None
    try:
        yield
    finally:
        # A transaction that has failed accepts no statement; its rollback undoes the setting.
        if changed and _accepts_statements(connection):
            connection.exec_driver_sql(_ON)


def _accepts_statements(connection: sa.Connection) -> bool:
    if connection.closed or connection.invalidated:
        return False
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        return False
    # In autocommit the connection is idle, and the setting has ended with its own statement.
    return driver.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
