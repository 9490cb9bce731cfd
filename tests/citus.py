"""Databases on a Citus cluster, where `TEST_CITUS_URL` names its coordinator.

The database of the URL has the extension and knows its workers. The role is a superuser of all
nodes. A test's database has the same name on each node, and is cloned there from that node's copy
of the template: the catalogs of Citus name nodes and shards, but no database.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.pool import NullPool

from observatory_storage import migrate
from observatory_storage.config import PostgresConfig
from observatory_storage.distribution import layout_options
from tests.servers import RUN, Server

VARIABLE = "TEST_CITUS_URL"
URL = os.environ.get(VARIABLE)
WITHOUT = f"{VARIABLE} names no coordinator"


def have_layout_by_default() -> None:
    """Let configurations without a layout have this one, as most tests make them."""
    PostgresConfig.model_fields["layout"].default = "citus"
    PostgresConfig.model_fields["shard_count"].default = 4
    PostgresConfig.model_rebuild(force=True)


class CitusServer(Server):
    """A coordinator with its workers."""

    @property
    def workers(self) -> list[tuple[str, int]]:
        """The hosts and ports of the workers."""
        query = (
            "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid > 0 AND isactive ORDER BY 2"
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [(str(host), int(port)) for host, port in connection.execute(query)]

    @contextmanager
    def database(self, template: str) -> Iterator[str]:
        name = f"{RUN}_{secrets.token_hex(4)}"
        self.create(name, template)
        try:
            if template == "template0":
                self.prepare(name)
            yield self.url_of(name)
        finally:
            self.drop(name)

    def create(self, name: str, template: str) -> None:
        """Create a database on all nodes."""
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY {}").format(
            sql.Identifier(name), sql.Identifier(template), sql.SQL("file_copy")
        )
        for conninfo in self._nodes("postgres"):
            with psycopg.connect(conninfo, autocommit=True) as connection:
                _repeated(connection, query, template)

    def prepare(self, name: str) -> None:
        """Have a database that is on all nodes be a cluster of its own."""
        for conninfo in self._nodes(name):
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION citus")
        with psycopg.connect(self.url_of(name), autocommit=True) as connection:
            connection.execute("SELECT citus_set_coordinator_host(%s, %s)", [self.host, self.port])
            for host, port in self.workers:
                connection.execute("SELECT citus_add_node(%s, %s)", [host, port])

    def drop(self, name: str) -> None:
        query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        for conninfo in self._nodes("postgres"):
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute(query)

    def drop_template(self, name: str) -> None:
        self.drop(name)

    @contextmanager
    def template(self) -> Iterator[str]:
        """A migrated database, from which others are cloned."""
        name = f"{RUN}_template"
        self.create(name, "template0")
        try:
            self.prepare(name)
            config = PostgresConfig.from_url(self.url_of(name))
            engine = sa.create_engine(
                config.url(), poolclass=NullPool, execution_options=layout_options(config)
            )
            migrate.upgrade(engine)
            yield name
        finally:
            self.drop(name)

    def _nodes(self, database: str) -> list[str]:
        own = conninfo_to_dict(self.url)
        return [
            make_conninfo(**{**own, "dbname": database, "host": host, "port": port})
            for host, port in ((self.host, self.port), *self.workers)
        ]


def _repeated(connection: psycopg.Connection[object], query: sql.Composed, template: str) -> None:
    """Create a database. Citus' own processes connect to the template from time to time."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            connection.execute(query)
            return
        if time.monotonic() > end:
            raise TimeoutError(f"{template} is always in use")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [template]
        )
