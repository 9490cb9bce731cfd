"""A primary and its hot standby, and databases on them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from observatory_embedded import EmbeddedPostgres
from observatory_embedded.databases import with_database
from observatory_storage import PoolConfig, PostgresConfig, RetryConfig, StorageConfig, StoragePool
from tests.servers import Server

_CAUGHT_UP_SECS = 60.0


@dataclass(frozen=True)
class Pair:
    """A primary and its standby.

    Attributes:
        primary, standby: the servers.
        template: the name of a migrated database.
    """

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres
    template: str

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A migrated database, which the standby has too."""
        with Server(self.primary.url, embedded=True).database(self.template) as url:
            self.catch_up()
            yield Database(self, url, with_database(self.standby.url, url_name(url)))

    def lasting_database(self, name: str) -> Database:
        """A migrated database that is not dropped before its servers are."""
        execute_alone(self.primary.url, f'CREATE DATABASE "{name}" TEMPLATE "{self.template}"')
        self.catch_up()
        urls = (with_database(server.url, name) for server in (self.primary, self.standby))
        return Database(self, *urls)

    def catch_up(self) -> None:
        """Wait until the standby has replayed what the primary has written."""
        lsn = ask(self.primary.url, "SELECT pg_current_wal_flush_lsn()::text")
        deadline = time.monotonic() + _CAUGHT_UP_SECS
        while not ask(self.standby.url, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", *lsn)[0]:
            assert time.monotonic() < deadline, "the standby does not catch up"
            time.sleep(0.01)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block the standby receives, and replays nothing."""
        self.catch_up()
        ask(self.standby.url, "SELECT pg_wal_replay_pause()")
        while ask(self.standby.url, "SELECT pg_get_wal_replay_pause_state()") != ("paused",):
            time.sleep(0.005)
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        """Have the standby replay again."""
        ask(self.standby.url, "SELECT pg_wal_replay_resume()")


@dataclass(frozen=True)
class Database:
    """A database of a pair.

    Attributes:
        pair: the servers.
        url: on the primary.
        read_url: on the standby.
    """

    pair: Pair
    url: str
    read_url: str

    def config(self, **given: Any) -> StorageConfig:
        """The configuration of a program that reads from the standby."""
        sections: Mapping[str, Any] = {
            "postgres": PostgresConfig.from_url(self.url, read_url=self.read_url),
            "retry": RetryConfig(max_attempts=2, initial_delay_ms=1),
            "pool": PoolConfig(min_connections=0),
            **given,
        }
        return StorageConfig(**sections)

    @contextmanager
    def pool(self, **given: Any) -> Iterator[StoragePool]:
        with StoragePool(self.config(**given), connect=False) as pool:
            yield pool


class Address:
    """An address that leads to one server and later to another, as a name in the DNS does."""

    def __init__(self, link: Path, database: Database) -> None:
        self._link = link
        self.url = f"postgresql://postgres@/{url_name(database.url)}?host={link}"

    def lead_to(self, url: str) -> None:
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))


def url_name(url: str) -> str:
    """The name of the database of a URL."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def ask(url: str, query: str, *values: object) -> tuple[Any, ...]:
    """The first row of a query."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row


def execute(url: str, *statements: str) -> None:
    """Execute statements in one transaction."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@contextmanager
def altered(server: EmbeddedPostgres, name: str, value: str) -> Iterator[None]:
    """Within the block the server has the setting."""
    statement = sql.SQL("ALTER SYSTEM {} {}")
    with psycopg.connect(server.url, autocommit=True) as connection:
        setting = sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        connection.execute(statement.format(sql.SQL("SET"), setting))
        connection.execute("SELECT pg_reload_conf()")
    while ask(server.url, "SELECT current_setting(%s)", name) != (value,):
        time.sleep(0.005)
    try:
        yield
    finally:
        if server.running:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(statement.format(sql.SQL("RESET"), sql.Identifier(name)))
                connection.execute("SELECT pg_reload_conf()")


def execute_alone(url: str, statement: str) -> None:
    """Execute a statement outside of a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
