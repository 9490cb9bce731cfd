"""What can befall a database that is written to, each for a moment."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from observatory_embedded import EmbeddedPostgres
from tests.writers.helpers import eventually

__all__ = ["ENDS", "WRITER", "Troubles", "as_writer", "restart"]

# Not a superuser, for whom some rules do not hold; a member of the role that owns the tables.
WRITER: Final = "frail_writer"
_MOMENT_SECS: Final = 0.3
# How a server goes down.
ENDS: Final[tuple[Callable[[EmbeddedPostgres], None], ...]] = (
    lambda server: server.stop("immediate"),
    lambda server: server.stop(),
    lambda server: server.kill(),
)


def as_writer(url: str) -> str:
    """The URL for the role that is no superuser."""
    return url.replace("://postgres@", f"://{WRITER}@")


def restart(server: EmbeddedPostgres, end: Callable[[EmbeddedPostgres], None]) -> None:
    before = _started_at(server)
    end(server)
    server.start()
    assert _started_at(server) > before


def _started_at(server: EmbeddedPostgres) -> datetime:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    assert row is not None
    started: datetime = row[0]
    return started


class Troubles:
    """Troubles of one database, brought about by a superuser.

    Attributes:
        terminations: how many times sessions were terminated.
        ended: how many sessions those were.
        at_work: how many of these were at work.
    """

    def __init__(self, url: str, source: random.Random) -> None:
        self.terminations = self.ended = self.at_work = 0
        self._url = make_conninfo(url, dbname=str(conninfo_to_dict(url)["dbname"]))
        self._name = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
        self._source = source

    def every(self) -> tuple[Callable[[], None], ...]:
        return (
            self.terminate,
            self.cancel,
            self.turn_read_only,
            self.turn_full,
            self.lock_a_table,
            self.lock_in_disorder,
        )

    def terminate(self) -> None:
        """Sessions end (57P01), those that are at work among them."""
        # All may be gone for a moment, when they have just been terminated.
        self._for_a_moment(self.terminated)

    def terminate_some(self) -> None:
        """As `terminate`, once there are any: writers that go on have some before long."""
        eventually(self.terminated)

    def terminated(self) -> bool:
        """End the sessions there are; whether there were any."""
        found = self._each_session("pg_terminate_backend(pid)")
        self.terminations += bool(found)
        self.ended += len(found)
        self.at_work += sum(found)
        return bool(found)

    def cancel(self) -> None:
        """Statements end, as by a timeout (57014)."""
        self._each_session("pg_cancel_backend(pid)")

    def turn_read_only(self) -> None:
        """As after a failover, when a session's server is a replica now (25006).

        The sessions that begin meanwhile stay read-only for as long as they live.
        """
        with self.altered("SET default_transaction_read_only = on", "RESET ALL"):
            self.terminate()
            self._for_a_moment(lambda: False)

    def turn_full(self) -> None:
        """There are too many connections (53300)."""
        with self.altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"):
            self.terminate()
            self._for_a_moment(lambda: False)

    def lock_a_table(self) -> None:
        """Somebody holds a table for longer than statements may take."""
        table: LiteralString = self._source.choice(("traces", "trace_spans", "trace_events"))
        with self.session() as connection, connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
            if self._for_a_moment(lambda: bool(self.waiting())):
                self._for_a_moment(lambda: not self.waiting())

    def lock_in_disorder(self) -> None:
        """Somebody locks traces in another order than writers do (40P01)."""
        deadlock = contextlib.suppress(psycopg.errors.DeadlockDetected)
        with deadlock, self.session() as connection, connection.transaction():
            # Half of the times it is the writer who has to give way.
            if self._source.random() < 0.5:
                connection.execute("SET LOCAL deadlock_timeout = '10s'")
            found = connection.execute("SELECT id FROM traces ORDER BY created_at DESC LIMIT 50")
            for trace in sorted(found.fetchall(), reverse=True):
                connection.execute("SELECT FROM traces WHERE id = %s FOR UPDATE", trace)

    def waiting(self) -> list[int]:
        """The sessions of others that wait for a lock."""
        return [pid for pid, event in self._sessions("pid, wait_event_type") if event == "Lock"]

    def session(self) -> psycopg.Connection[Any]:
        """A session of a superuser that may write, whatever others may."""
        session = psycopg.connect(self._url, autocommit=True)
        session.execute("SET default_transaction_read_only = off")
        return session

    def sessions(self) -> int:
        """How many sessions of others there are."""
        return len(self._sessions("pid"))

    def _each_session(self, function: LiteralString) -> list[bool]:
        """Call it for the sessions of others; for each, whether it was at work."""
        return [state != "idle" for state, _ in self._sessions(f"state, {function}")]

    def _sessions(self, columns: LiteralString) -> list[tuple[Any, ...]]:
        with self.session() as connection:
            return connection.execute(
                f"SELECT {columns} FROM pg_stat_activity"
                f" WHERE datname = current_database() AND usename = '{WRITER}'"
            ).fetchall()

    @contextmanager
    def altered(self, change: LiteralString, back: LiteralString) -> Iterator[None]:
        """The database is so for sessions that begin meanwhile."""
        with self.session() as connection:
            query = sql.SQL("ALTER DATABASE {} ")
            connection.execute(query.format(self._name) + sql.SQL(change))
            try:
                yield
            finally:
                connection.execute(query.format(self._name) + sql.SQL(back))

    def _for_a_moment(self, condition: Callable[[], bool]) -> bool:
        """Whether it comes true before long; nothing is wrong where it does not."""
        deadline = time.monotonic() + self._source.uniform(0.3, 1) * _MOMENT_SECS
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.002)
        return False
