"""What a repository of a read-only unit of work does not do, and what it says of rows not found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy.orm import Session

from observatory_storage.errors import NotFound, ReadOnly, StorageError, translated
from observatory_storage.wal_positions import WalState, lsn_number

__all__ = ["READ_ONLY", "ReadOnlyGuard", "follows", "refuse_writing", "writes"]

# The key in `Session.info` of the guard of a read-only unit of work.
READ_ONLY: Final = "observatory_storage.read_only"
_NEEDS_PRIMARY: Final = "__needs_primary__"
_WRITABLE: Final = "use pool.unit_of_work() without read_only"
M = TypeVar("M", bound=Callable[..., Any])


def writes(method: M) -> M:
    """Mark a method of a repository that writes."""
    setattr(method, _NEEDS_PRIMARY, "writes")
    return method


def follows(method: M) -> M:
    """Mark a method of a repository that follows the transactions of the primary."""
    setattr(method, _NEEDS_PRIMARY, "follows")
    return method


def refuse_writing(session: Session, what: str) -> None:
    """Refuse to write within a read-only unit of work.

    Raises:
        ReadOnly: the session is that of one.
    """
    if session.info.get(READ_ONLY) is not None:
        raise ReadOnly(f"{what}: this unit of work is read only; {_WRITABLE}")


class ReadOnlyGuard:
    """Calls the methods of the repositories of one read-only unit of work.

    Args:
        has_server: whether the unit of work reads from a server of its own, which may be a standby.
    """

    def __init__(self, *, has_server: bool) -> None:
        self._has_server = has_server
        self._is_within = False

    def call(
        self, name: str, method: Callable[..., Any], repository: Any, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a method of a repository.

        Args:
            name: names the method, such as ``"traces.get"``.
            method: the method.
            repository: its repository.
            *args: its arguments.
            **kwargs: its arguments.

        Raises:
            ReadOnly: the method writes.
            StorageError: it follows transactions, which a standby does not know.
        """
        need = getattr(method, _NEEDS_PRIMARY, None)
        session: Session = repository._reader.session
        if need == "writes":
            refuse_writing(session, name)
        if need == "follows" and self._has_server:
            raise StorageError(
                f"{name} follows the transactions of the primary, which the read server does not"
                f" know: {_WRITABLE}"
            )
        if self._is_within:
            return method(repository, *args, **kwargs)
        self._is_within = True
        try:
            return method(repository, *args, **kwargs)
        except NotFound as error:
            lag = _lag(session) if self._has_server else None
            if lag is None:
                raise
            raise NotFound(f"{error}; {lag}") from error
        finally:
            self._is_within = False


def _lag(session: Session) -> str | None:
    """How far the standby of the session is, as far as it knows itself.

    The primary is not asked: many rows that are not found would be many questions to it.

    Returns:
        None if it is no standby, or does not tell.
    """
    try:
        # In a savepoint, so that the transaction can be used also if the server refuses.
        with translated(), (connection := session.connection()).begin_nested():
            state = WalState.of(connection)
    except StorageError:
        return None
    if not state.is_standby:
        return None
    told = f"the standby that was asked has replayed the primary's log up to {state.lsn}"
    if state.received is not None and state.lsn is not None:
        behind = max(0, lsn_number(state.received) - lsn_number(state.lsn))
        told += f", {behind} bytes less than it has received"
    if state.age_secs is not None:
        told += f"; the last commit there is {max(0.0, state.age_secs):.3f} s old"
    return f"{told}: what was committed later is not there yet"
