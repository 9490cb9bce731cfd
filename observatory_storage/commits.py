"""Tells listeners what was committed. The cache and the live stream are kept up to date by it.

A listener hears of a transaction after its commit, never before, in the thread that committed it.
Without listeners nothing is kept of what is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from observatory_storage.rows import Row

__all__ = ["Change", "Commit", "CommitListener", "Commits", "follow_session", "tell_with_session"]

_log = logging.getLogger(__name__)
_COMMITS: Final = "observatory_storage.commits"
_NOTES: Final = "observatory_storage.commits.notes"


class Change(NamedTuple):
    """Rows of a table that were deleted or computed anew.

    Attributes:
        table: the name of the table.
        first: no changed row is earlier; None if that is not known.
        last: no changed row is later; None if that is not known.
    """

    table: str
    first: datetime | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What a transaction has committed.

    Attributes:
        rows: the prepared rows that were written, those that were stored before included.
        changes: what was changed otherwise.
    """

    rows: Sequence[Row] = ()
    changes: Sequence[Change] = ()


class CommitListener(Protocol):
    """Hears of each commit. It must not wait for long: the writer waits for it."""

    def on_commit(self, commit: Commit) -> None: ...


class Commits:
    """The listeners of a pool. It is false if there are none."""

    def __init__(self) -> None:
        self._listeners: tuple[CommitListener, ...] = ()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: CommitListener) -> None:
        """Let the listener hear of commits from now on."""
        with self._lock:
            self._listeners += (listener,)

    def remove(self, listener: CommitListener) -> None:
        """Let the listener hear of no more commits."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

    def tell(self, commit: Commit) -> None:
        """Tell all listeners of a transaction that has been committed.

        An error of a listener is logged: what was committed stays so.
        """
        for listener in self._listeners:
            try:
                listener.on_commit(commit)
            except Exception:  # noqa: BLE001 - the caller's rows are committed, whatever it is
                _log.exception("a listener failed after a commit")


class _Note(NamedTuple):
    """What a part of a session's transaction has done.

    Attributes:
        within: the innermost transaction or savepoint at that time.
        commit: what was done.
    """

    within: SessionTransaction | None
    commit: Commit


def follow_session(commits: Commits, session: Session) -> None:
    """Let `tell_with_session` tell these listeners what the session commits."""
    session.info[_COMMITS] = commits


def tell_with_session(session: Session, commit: Commit) -> None:
    """Tell the listeners of the session's pool once the session has committed its transaction.

    What is rolled back, also to a savepoint, is forgotten.
    """
    commits: Commits | None = session.info.get(_COMMITS)
    if not commits:
        return
    if _NOTES not in session.info:
        session.info[_NOTES] = []
        _listen(commits, session)
    within = session.get_nested_transaction() or session.get_transaction()
    session.info[_NOTES].append(_Note(within, commit))


def _listen(commits: Commits, session: Session) -> None:
    notes: list[_Note] = session.info[_NOTES]

    @event.listens_for(session, "after_commit")
    def committed(_: Session) -> None:
        if session.in_nested_transaction():
            return  # a savepoint was released
        done = notes[:]
        notes.clear()
        for note in done:
            commits.tell(note.commit)

    @event.listens_for(session, "after_soft_rollback")
    def rolled_back(_: Session, ended: SessionTransaction) -> None:
        notes[:] = [note for note in notes if not _is_part(note.within, ended)]


def _is_part(inner: Any, outer: SessionTransaction) -> bool:
    while inner is not None:
        if inner is outer:
            return True
        inner = inner.parent
    return False
