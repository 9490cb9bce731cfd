"""The locks of a migration: one process at a time, and short waits for busy tables."""

from __future__ import annotations

import random
from typing import Final

import sqlalchemy as sa

from observatory_storage import schema_state
from observatory_storage.errors import sqlstate_of
from observatory_storage.layout import advisory_key

__all__ = ["LOCK_TIMEOUT", "is_blocked", "lock_tables", "set_timeouts", "try_lock"]

# A migration that waits for a lock on a busy table makes everyone behind it wait too: it gives up
# after this long and tries again. It is shorter than the usual deadlock_timeout, so that in a
# deadlock the migration gives up, and neither a reader nor a writer sees an error.
LOCK_TIMEOUT: Final = "500ms"
# From the second attempt on, the tables are locked together, for which there is this much time.
_LOCK_ALL_TIMEOUT: Final = "700ms"
# lock_timeout ran out, deadlock detected, statement_timeout ran out
_BLOCKED: Final = frozenset({"55P03", "40P01", "57014"})


def is_blocked(error: BaseException) -> bool:
    """Whether a migration failed because of a lock, so that it may be tried again."""
    return sqlstate_of(error) in _BLOCKED


def set_timeouts(connection: sa.Connection) -> None:
    """Bound waits for locks until the transaction ends, and statements by nothing else."""
    # Neither a timeout of the session nor one of the role stops a long migration.
    connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))


def lock_tables(connection: sa.Connection, schema: str) -> None:
    """Lock all tables that are there, in an order that differs from attempt to attempt.

    A migration that changes several tables deadlocks with queries that use them in another order,
    and gives up. On a busy server it would do so again and again. Some order is theirs.
    """
    found = sorted(schema_state.tables_of(connection, schema))
    if not found:
        return
    random.shuffle(found)
    names = ", ".join(f"{schema_state.quoted_name(schema)}.{name}" for name in found)
    connection.execute(sa.text(f"SET LOCAL statement_timeout = '{_LOCK_ALL_TIMEOUT}'"))
    connection.execute(sa.text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    set_timeouts(connection)


def try_lock(connection: sa.Connection, schema: str) -> bool:
    """Take the lock of migrations until the transaction ends; whether it was free."""
    statement = sa.text("SELECT pg_catalog.pg_try_advisory_xact_lock(:key)")
    return bool(connection.scalar(statement, {"key": advisory_key("migrations", schema)}))
