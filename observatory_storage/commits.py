"""Tells listeners what was committed. The cache and the live stream are kept up to date by it.

A listener hears of a transaction after its commit, never before, in the thread that committed it.
Without listeners nothing is kept of what is written. A guard is called before the commit as well.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import Connection, TableClause, event, inspect, sql
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.sql import visitors

from observatory_storage.changed_spans import noted_changes
from observatory_storage.rows import Row
from observatory_storage.tables import OWN_TABLES, SPANS, TABLES, TRACES

__all__ = [
    "Change",
    "Commit",
    "CommitGuard",
    "CommitListener",
    "Commits",
    "FollowedSession",
    "Telling",
    "changes_of_spans",
    "follow_session",
    "tell_with_session",
    "telling_itself",
]

_log = logging.getLogger(__name__)
_COMMITS: Final = "observatory_storage.commits"
_NOTES: Final = "observatory_storage.commits.notes"
_TELLING: Final = "observatory_storage.commits.telling"
_TELLS_ITSELF: Final = "observatory_storage.commits.tells_itself"
_HAS_CHANGED: Final = "observatory_storage.commits.has_changed"
# The answers of PostgreSQL to statements that change rows.
_CHANGING: Final = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE")


class Change(NamedTuple):
    """Rows of a table that were deleted or computed anew.

    Attributes:
        table: the name of the table.
        first: no changed row is earlier; None if that is not known.
        last: no changed row is later; None if that is not known.
        traces: the traces whose rows were deleted, as far as they are known.
    """

    table: str
    first: datetime | None = None
    last: datetime | None = None
    traces: Sequence[UUID] = ()


def changes_of_spans(connection: Connection) -> list[Change]:
    """What a transaction that computes columns of spans and their traces anew has changed."""
    ranges = noted_changes(connection)
    return [Change(SPANS.name, *range_) for range_ in ranges] or [Change(TRACES.name)]


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


class CommitGuard(Protocol):
    """Is called before each commit, on the connection that is about to commit."""

    def before_commit(
        self, connection: Connection, commits: Sequence[Commit]
    ) -> Callable[[], None] | None:
        """Prepare for the commit. An error is logged, and the transaction is committed.

        Returns:
            What is called after the commit. It is not called if the commit fails, or if it is not
            known whether it has failed.
        """


class Commits:
    """The listeners of a pool. It is false if there are neither listeners nor guards."""

    def __init__(self) -> None:
        self._listeners: tuple[CommitListener, ...] = ()
        self._guards: tuple[CommitGuard, ...] = ()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._listeners or self._guards)

    @property
    def keeps_rows(self) -> bool:
        """Whether a listener wants all rows of a transaction, however many."""
        return bool(self._listeners)

    def add(self, listener: CommitListener) -> None:
        """Let the listener hear of commits from now on."""
        with self._lock:
            self._listeners += (listener,)

    def remove(self, listener: CommitListener) -> None:
        """Let the listener hear of no more commits."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

    def add_guard(self, guard: CommitGuard) -> None:
        """Call the guard before each commit from now on."""
        with self._lock:
            self._guards += (guard,)

    @contextmanager
    def telling(self) -> Iterator[Telling]:
        """Tell of a transaction that is committed at the end of the block.

        Example::

            with source.commits.telling() as telling, source.engine.begin() as connection:
                ...
                telling.announce(connection, Commit(rows))
        """
        telling = Telling(self)
        yield telling
        telling.committed()

    def tell(self, commit: Commit) -> None:
        """Tell all listeners of a transaction that has been committed.

        An error of a listener is logged: what was committed stays so.
        """
        for listener in self._listeners:
            try:
                listener.on_commit(commit)
            except Exception:  # noqa: BLE001 - the caller's rows are committed, whatever it is
                _log.exception("a listener failed after a commit")

    def _prepare(
        self, connection: Connection, commits: Sequence[Commit]
    ) -> list[Callable[[], None]]:
        found = []
        for guard in self._guards:
            try:
                finish = guard.before_commit(connection, commits)
            except Exception:  # noqa: BLE001 - the caller's rows matter more
                _log.exception("a guard failed before a commit")
            else:
                found += [finish] if finish is not None else []
        return found


class Telling:
    """Tells the guards of one transaction before its commit, and guards and listeners after it."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._announced: Sequence[Commit] = ()
        self._finishing: list[Callable[[], None]] = []

    def announce(self, connection: Connection, *commits: Commit) -> None:
        """Say what is about to be committed: the last step before the commit."""
        self._announced = commits
        self._finishing = self._commits._prepare(connection, commits)

    def committed(self) -> None:
        """Tell of the commit."""
        for finish in self._finishing:
            try:
                finish()
            except Exception:  # noqa: BLE001 - the caller's rows are committed, whatever it is
                _log.exception("a guard failed after a commit")
        for commit in self._announced:
            self._commits.tell(commit)
        self._announced, self._finishing = (), []


class _Note(NamedTuple):
    """What a part of a session's transaction has done.

    Attributes:
        within: the innermost transaction or savepoint at that time.
        commit: what was done.
    """

    within: SessionTransaction | None
    commit: Commit


class FollowedSession(Session):
    """A session whose commits are told: what `tell_with_session` notes, and what else it changes.

    Those are changed entities, and the tables that statements of SQLAlchemy insert into, update or
    delete from, on the session or on its connection. Statements that are text are not noticed.
    """

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        with telling_itself(self):  # what was flushed is told with its times
            super().flush(objects)


def follow_session(commits: Commits, session: FollowedSession) -> None:
    """Tell these listeners what the session commits."""
    session.info[_COMMITS] = commits


def tell_with_session(session: Session, commit: Commit) -> None:
    """Tell the listeners of the session's pool once the session has committed its transaction.

    What is rolled back, also to a savepoint, is forgotten.
    """
    if session.info.get(_COMMITS):
        within = session.get_nested_transaction() or session.get_transaction()
        notes = session.info.setdefault(_NOTES, [])
        note = _Note(within, commit)
        if not notes or notes[-1] != note:  # one statement may be executed many times
            notes.append(note)


@contextmanager
def telling_itself(session: Session) -> Iterator[None]:
    """Statements of the block are not noticed: it calls `tell_with_session`, which says more."""
    before = session.info.get(_TELLS_ITSELF, False)
    session.info[_TELLS_ITSELF] = True
    try:
        yield
    finally:
        session.info[_TELLS_ITSELF] = before


def has_changed(session: Session) -> bool:
    """Whether the transaction of a session that is followed has changed rows, by text too."""
    return bool(session.info.get(_NOTES) or session.info.get(_HAS_CHANGED))


@event.listens_for(FollowedSession, "before_commit")
def _before_commit(session: Session) -> None:
    commits: Commits | None = session.info.get(_COMMITS)
    if not commits or session.in_nested_transaction():
        return  # nobody listens, or a savepoint is released
    if session.new or session.dirty or session.deleted:
        session.flush()  # so that these changes are noted
    notes: list[_Note] = session.info.get(_NOTES, [])
    if notes:
        telling = session.info[_TELLING] = Telling(commits)
        telling.announce(session.connection(), *(note.commit for note in notes))


@event.listens_for(FollowedSession, "after_commit")
def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    session.info.pop(_NOTES, None)
    session.info.pop(_HAS_CHANGED, None)
    telling: Telling | None = session.info.pop(_TELLING, None)
    if telling is not None:
        telling.committed()


@event.listens_for(FollowedSession, "after_soft_rollback")
def _after_rollback(session: Session, ended: SessionTransaction) -> None:
    notes: list[_Note] = session.info.get(_NOTES, [])
    notes[:] = [note for note in notes if not _is_part(note.within, ended)]
    if ended.parent is None:
        session.info.pop(_TELLING, None)
        session.info.pop(_HAS_CHANGED, None)


@event.listens_for(FollowedSession, "after_flush")
def _after_flush(session: Session, _: UOWTransaction) -> None:
    if session.info.get(_COMMITS):
        changed = {*session.new, *session.dirty, *session.deleted}
        if changes := [change for row in changed if (change := _change_of(row))]:
            tell_with_session(session, Commit(changes=changes))


@event.listens_for(FollowedSession, "after_begin")
def _after_begin(session: Session, begun: SessionTransaction, connection: Connection) -> None:
    if not session.info.get(_COMMITS) or begun.parent is not None:
        return  # nobody listens, or a savepoint of a transaction that is followed

    def after_execute(*call: Any) -> None:
        if (call[1].statusmessage or "").startswith(_CHANGING):
            session.info[_HAS_CHANGED] = True
        compiled = getattr(call[4], "compiled", None)  # the context of the execution
        if compiled is None or session.info.get(_TELLS_ITSELF):
            return
        if changes := [Change(name) for name in _changed_tables(compiled)]:
            tell_with_session(session, Commit(changes=changes))

    event.listen(connection, "after_cursor_execute", after_execute)


def _changed_tables(compiled: Any) -> list[str]:
    """The tables of ours that a statement may change, also in a part of it."""
    changes_rows = compiled.isinsert or compiled.isupdate or compiled.isdelete
    if not (changes_rows or getattr(compiled, "ctes", None)):
        return []  # most statements: a query, whose parts need not be looked at
    parts = visitors.iterate(compiled.statement)
    targets = [part.table for part in parts if isinstance(part, sql.dml.UpdateBase)]
    tables = {
        part.name
        for target in targets
        for part in visitors.iterate(target)
        if isinstance(part, TableClause)
    }
    return sorted(name for name in tables if name in TABLES or name in OWN_TABLES)


def _change_of(row: Any) -> Change | None:
    name = inspect(row).mapper.local_table.name
    if name not in TABLES and name not in OWN_TABLES:
        return None
    column = TABLES[name].partition_column if name in TABLES else None
    if column is None or column not in vars(row) or get_history(row, column).deleted:
        return Change(name)
    return Change(name, vars(row)[column], vars(row)[column])


def _is_part(inner: Any, outer: SessionTransaction) -> bool:
    while inner is not None:
        if inner is outer:
            return True
        inner = inner.parent
    return False
