"""The error classes, and the translation of driver errors into them.

Every call to PostgreSQL runs inside `translated()`, so users meet only these classes; the driver's
error is the ``__cause__``. The class of an error follows from its SQLSTATE (PostgreSQL
documentation, appendix A), never from its message, because the server may write messages in another
language.
"""

from __future__ import annotations

import pickle
import re
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import sqlalchemy.exc

__all__ = [
    "BatchError",
    "CacheError",
    "ConfigError",
    "Conflict",
    "ConnectionLost",
    "MigrationError",
    "NotFound",
    "PoolError",
    "ReadOnly",
    "Rejected",
    "StorageError",
    "Timeout",
    "ValidationError",
    "is_outage",
    "read_only_error",
    "sqlstate_of",
    "translate",
    "translated",
]

_SHOWN_CHARACTERS = 120
# Does not build the text of a whole payload, nor follow deep nesting, to show its beginning.
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxlong = _repr.maxother = 3 * _SHOWN_CHARACTERS
_repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxfrozenset = 20


class StorageError(Exception):
    """The storage could not do what was asked."""

    retryable: bool = False

    def __init__(self, message: str | None = None, *, retryable: bool | None = None) -> None:
        super().__init__(message or type(self).__doc__)
        if retryable is not None:
            self.retryable = retryable


class ConfigError(StorageError):
    """The configuration is not usable."""


class ConnectionLost(StorageError):
    """PostgreSQL could not be reached, or the connection was lost."""

    retryable = True


class NotFound(StorageError, LookupError):
    """There is no such row."""


class ValidationError(StorageError, ValueError):
    """A value does not fit its field.

    Attributes:
        field: the name of the field or argument.
        value: the value that was given.
        rule: the rule that the value breaks.
        index: the index of the row in its batch; None outside of a batch.
        position: the index of the mistake in a text that was parsed; None for other values.
    """

    def __init__(
        self,
        field: str,
        value: object = None,
        rule: str = "is not valid",
        index: int | None = None,
        position: int | None = None,
    ) -> None:
        self.field, self.value, self.rule, self.index = field, value, rule, index
        self.position = position
        place = "" if index is None else f"row {index}: "
        super().__init__(f"{place}{field}={shown(value)}: {rule}")

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.field, _portable(self.value), self.rule, self.index, self.position)
        return type(self), given, {"args": self.args}


class Conflict(StorageError):
    """The operation conflicts with another transaction or an existing row."""


class MigrationError(StorageError):
    """The schema could not be migrated to the requested revision."""


class Timeout(StorageError, TimeoutError):
    """The server did not finish in the time allowed."""


class PoolError(StorageError):
    """The pool or the server has no free connection, or the pool is closed."""

    retryable = True


class ReadOnly(StorageError):
    """The unit of work, the session or the server takes no writes.

    Repeating the call does not help: write outside of the read-only unit of work, or connect to the
    primary. Buffered writers keep their rows, and go on trying.
    """


class CacheError(StorageError):
    """Redis could not do what was asked."""

    retryable = True


class Rejected(NamedTuple):
    """One refused row of a batch: its index in the batch, the row, and the error."""

    index: int  # type: ignore[assignment]  # takes the place of the method that tuples have
    row: Any
    error: StorageError

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, _portable(self.row), self.error)


class BatchError(StorageError):
    """Some rows of a batch were refused; all others were accepted.

    Attributes:
        rejected: one `Rejected` (index, row, error) for each refused row.
    """

    def __init__(self, rejected: Sequence[Rejected]) -> None:
        self.rejected = list(rejected)
        first = self.rejected[0]
        rest = f" (and {len(self.rejected) - 1} more)" if len(self.rejected) > 1 else ""
        super().__init__(f"{len(self.rejected)} refused; row {first.index}: {first.error}{rest}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rejected,)


def shown(value: object) -> str:
    """The value as an error message shows it: its repr, cut to a readable length."""
    try:
        text = _repr.repr(value)
    except Exception:  # noqa: BLE001 - whatever a value's own repr does, the error must be told
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _portable(value: Any) -> Any:
    """The value, or its text as errors show it, if the value cannot be pickled."""
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - pickle raises whatever the value's class does
        return shown(value)
    return value


# SQLSTATE -> (class, retryable). A key of two characters stands for all states of that class that
# are not listed themselves. 25006 is translated by `read_only_error`.
_BY_STATE: dict[str, tuple[type[StorageError], bool]] = {
    "08": (ConnectionLost, True),
    "57P01": (ConnectionLost, True),
    "57P02": (ConnectionLost, True),
    "57P03": (ConnectionLost, True),
    "57P05": (ConnectionLost, True),
    "25P03": (ConnectionLost, True),
    "25P04": (Timeout, False),
    "53300": (PoolError, True),
    "40": (Conflict, True),
    "55P03": (Conflict, True),
    "23505": (Conflict, False),
    "23P01": (Conflict, False),
    "57014": (Timeout, False),
    "22": (ValidationError, False),
    "23": (ValidationError, False),
}

# undefined_table, undefined_column, invalid_schema_name: for a table of this package, they mean
# that migrations have not been run.
_UNMIGRATED = ("42P01", "42703", "3F000")
_MIGRATE = (
    "the schema is older than this version of observatory_storage: run `observatory-storage"
    " migrate` or pool.run_migrations(), unless the name is one of your own"
)
# A read-only transaction, a standby, a former primary after a failover, or a session that was set
# to read only.
_READ_ONLY = "25006"
_WRITABLE = (
    "the server or the session takes no writes: connect to the primary, with"
    " target_session_attrs=read-write if the URL names several hosts"
)


# Citus repeats the errors of shards without their fields, and its names end with that of the shard.
_CONSTRAINT = re.compile(r'violates \w+ constraint "([^"]+?)(?:_\d{6,})?"')


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of a psycopg error, even if SQLAlchemy has wrapped it."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def translate(error: BaseException) -> StorageError | None:
    """The `StorageError` for an error of SQLAlchemy or psycopg; None for any other error."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return PoolError(str(error).partition(" (Background on")[0])
    original = getattr(error, "orig", None) or error
    state = sqlstate_of(error)
    message = _first_line(original)
    disconnected = isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated
    if state == _READ_ONLY:
        return read_only_error(message, was_left=disconnected)
    if state is not None:
        found = _BY_STATE.get(state) or _BY_STATE.get(state[:2])
        if found is not None:
            kind, retryable = found
            if kind is ValidationError:
                return _data_error(original, message)
            return kind(message, retryable=retryable)
        if state in _UNMIGRATED:
            message += f"; {_MIGRATE}"
    # Without a SQLSTATE the server never answered: the network or the connection is at fault.
    if disconnected or (state is None and isinstance(original, psycopg.OperationalError)):
        return ConnectionLost(message)
    if isinstance(original, psycopg.DataError):
        return _data_error(original, message)
    if isinstance(error, (sqlalchemy.exc.SQLAlchemyError, psycopg.Error)):
        return StorageError(message)
    return None


def read_only_error(message: str, *, was_left: bool) -> StorageError:
    """The error of a write that the server refused since it takes none.

    Args:
        message: what the server said.
        was_left: whether the connection had been in use for a while, and is not used again. Then
            its server may have been demoted, and another attempt connects to the primary.
    """
    told = f"{message}; {_WRITABLE}"
    return ConnectionLost(told) if was_left else ReadOnly(told)


def is_outage(error: StorageError) -> bool:
    """Whether the database takes no rows now, so that rows should be kept until it does.

    That is so after a retryable error, and while the server is a standby: after a failover, the
    address leads to the new primary some time later.
    """
    return error.retryable or isinstance(error, ReadOnly)


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of SQLAlchemy and psycopg from the block as the matching `StorageError`."""
    try:
        yield
    except StorageError:
        raise
    except (sqlalchemy.exc.SQLAlchemyError, psycopg.Error) as error:
        raise (translate(error) or error) from error


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _data_error(error: object, message: str) -> ValidationError:
    diagnostic = getattr(error, "diag", None)
    column = getattr(diagnostic, "column_name", None)
    constraint = getattr(diagnostic, "constraint_name", None)
    if constraint is None and (named := _CONSTRAINT.search(message)) is not None:
        constraint = named[1]
    result = ValidationError(column or constraint or "row", None, message)
    result.args = (f"{column or constraint}: {message}" if column or constraint else message,)
    return result
