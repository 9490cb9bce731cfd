"""Connections that take no writes: of read-only units of work, and to servers that are standbys.

The transactions of a read-only engine are read only on every server, a primary included, so that
what a program may do does not depend on which server answers.
"""

from __future__ import annotations

from typing import Any, Final, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from observatory_storage.errors import Conflict, ReadOnly, StorageError, read_only_error

__all__ = ["explain_replay_conflicts", "is_read_only", "leave_replicas", "left_replica", "reading"]

# The execution option of the connections of a read-only engine.
_READ_ONLY: Final = "observatory_storage.read_only"
_UNIT_OF_WORK: Final = "this unit of work is read only: write within pool.unit_of_work()"
_CONFLICT: Final = (
    "the standby cancelled the query, which was in the way of what it replays: try again, or raise"
    " max_standby_streaming_delay or set hot_standby_feedback on the standby"
)
# Replay cancels queries with these. In a read-only transaction nothing else has them, unless it is
# serializable, which a standby refuses.
_OF_REPLAY: Final = frozenset(("40001", "40P01"))


def reading(engine: sa.Engine) -> sa.Engine:
    """An engine with the same connections, all of whose transactions are read only."""
    made = engine.execution_options(**{_READ_ONLY: True})

    @event.listens_for(made, "engine_connect")
    def begin_read_only(connection: sa.Connection) -> None:
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        if driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            raise StorageError(
                "a read-only unit of work needs a connection of its own, and that of the engine's"
                f" {type(connection.engine.pool).__name__} is within a transaction"
            )
        # It becomes part of BEGIN, so it takes no statement of its own. SQLAlchemy's option
        # `postgresql_readonly` would leave connections behind that begin with READ WRITE, which a
        # standby refuses.
        driver.read_only = True

        def give_back(_: object) -> None:
            if not driver.closed:
                driver.read_only = None

        record: Any = connection.connection._connection_record
        record.finalize_callback.append(give_back)

    return made


def is_read_only(connection: sa.Connection) -> bool:
    """Whether the connection is one of a read-only engine."""
    return bool(connection.get_execution_options().get(_READ_ONLY))


def explain_replay_conflicts(engine: sa.Engine) -> None:
    """Let errors on connections of a read-only engine say what they mean there."""

    @event.listens_for(engine, "handle_error")
    def explain(context: sa.ExceptionContext) -> StorageError | None:
        connection, error = context.connection, context.original_exception
        if connection is None or not is_read_only(connection):
            return None
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return ReadOnly(f"{_first_line(error)}; {_UNIT_OF_WORK}")
        if getattr(error, "sqlstate", None) in _OF_REPLAY:
            return Conflict(f"{_first_line(error)}; {_CONFLICT}", retryable=True)
        return None


def leave_replicas(engine: sa.Engine) -> None:
    """Discard all connections when one of them leads to a read-only server, but should write.

    After a failover that server may be the former primary, to which no attempt should go again. If
    the connection had been in use for a while, another attempt connects anew, and the error is
    retryable. A new connection that meets such a server was led there by the address, so another
    attempt would meet the same server.
    """

    @event.listens_for(engine, "handle_error")
    def leave(context: sa.ExceptionContext) -> StorageError | None:
        connection, error = context.connection, context.original_exception
        if connection is None or not isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return None
        if is_read_only(connection):
            return None
        context.is_disconnect = True
        return read_only_error(_first_line(error), was_left=_was_used_before(connection))


def left_replica(connection: sa.Connection, error: psycopg.Error) -> StorageError:
    """The same for an error that SQLAlchemy does not see: what to raise instead."""
    if is_read_only(connection):
        return ReadOnly(f"{_first_line(error)}; {_UNIT_OF_WORK}")
    was_used = _was_used_before(connection)
    # The pool opens another one in its place, which the next attempt gets.
    connection.invalidate(error)
    return read_only_error(_first_line(error), was_left=was_used)


def _was_used_before(connection: sa.Connection) -> bool:
    """Whether the connection was opened for an earlier use, as far as its pool tells."""
    return bool(connection.info.get("was_returned"))


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]
