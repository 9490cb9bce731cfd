"""The server that the tests run on, and temporary databases on it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from observatory_embedded import FAST_SETTINGS
from observatory_embedded.databases import with_database
from observatory_storage import migrate

# Unique for each worker of each run, so that several can share one server.
RUN = f"observatory_test_{os.getpid()}_{secrets.token_hex(4)}"

FAST = {
    **FAST_SETTINGS,
    "max_wal_size": "256MB",
    # Tests assert plans and counts, so nothing else may change statistics meanwhile.
    "autovacuum_naptime": "1h",
}


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL, with the attributes that pytest-postgresql needs."""

    url: str
    embedded: bool
    template_dbname: str | None = None
    options: str = ""

    @property
    def host(self) -> str:
        return str(self._parameters.get("host", "localhost"))

    @property
    def port(self) -> int:
        return int(self._parameters.get("port", 5432))

    @property
    def user(self) -> str:
        return str(self._parameters.get("user", "postgres"))

    @property
    def password(self) -> str | None:
        password = self._parameters.get("password")
        return None if password is None else str(password)

    @property
    def maintenance_dbname(self) -> str:
        return str(self._parameters.get("dbname", self.user))

    @property
    def _parameters(self) -> dict[str, Any]:
        return conninfo_to_dict("postgresql://" + self.url.partition("://")[2])

    def url_of(self, database: str) -> str:
        """The URL of a database on this server, without the name of a driver."""
        return with_database(self.url, database)

    @contextmanager
    def administration(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """A connection that can create and drop databases."""
        with psycopg.connect(self.url_of(self.maintenance_dbname), autocommit=True) as connection:
            yield connection

    @contextmanager
    def database(self, template: str) -> Iterator[str]:
        """A new copy of the template. Yields its URL, and drops it at the end."""
        name = f"{RUN}_{secrets.token_hex(4)}"
        # Copying files needs checkpoints, which cost nothing on a server that never syncs.
        strategy = "file_copy" if self.embedded else "wal_log"
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY {}")
        with self.administration() as connection:
            connection.execute(
                query.format(sql.Identifier(name), sql.Identifier(template), sql.SQL(strategy))
            )
        try:
            yield self.url_of(name)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Drop a database of the tests, and disconnect its clients."""
        query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with self.administration() as connection:
            try:
                connection.execute(query)
            except psycopg.errors.InsufficientPrivilege:
                # Autovacuum is at work there, and only a superuser may end it by force. Without
                # force, the server asks it to end, and waits.
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = %s AND usename = current_user",
                    [name],
                )
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))
                )

    def drop_template(self, name: str) -> None:
        """Drop a database that is marked as a template."""
        query = sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name))
        missing = contextlib.suppress(psycopg.errors.InvalidCatalogName)
        with self.administration() as connection, missing:
            connection.execute(query)
        self.drop(name)


@dataclass(frozen=True)
class SharedServer(Server):
    """The server of many tests. One connection creates all their databases until it is closed.

    Connecting takes as long as half of a copy.
    """

    @cached_property
    def _administrator(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url_of(self.maintenance_dbname), autocommit=True)

    @contextmanager
    def administration(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        yield self._administrator

    def close(self) -> None:
        self._administrator.close()


@contextmanager
def in_utf8(url: str) -> Iterator[Server]:
    """The server of this URL, with a UTF-8 template if its own has another encoding."""
    with closing(SharedServer(url, embedded=False)) as server:
        with server.administration() as connection:
            row = connection.execute(
                "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'template1'"
            ).fetchone()
        if row == ("UTF8",):
            yield server
            return
        with server.database("template0") as base:
            name = str(conninfo_to_dict(base)["dbname"])
            with closing(replace(server, template_dbname=name)) as of_template:
                yield of_template


def migrated(
    host: str, port: int, user: str, dbname: str, password: str | None, **_: object
) -> None:
    """Migrate a database to the newest revision. pytest-postgresql calls this for its template."""
    query = {"host": host} if host.startswith("/") else {}
    url = URL.create(
        "postgresql+psycopg",
        username=user,
        password=password,
        host=None if query else host,
        port=int(port),
        database=dbname,
        query=query,
    )
    engine = sa.create_engine(url, poolclass=NullPool)
    try:
        migrate.upgrade(engine)
    finally:
        engine.dispose()
