"""Databases on a Citus cluster, where `TEST_CITUS_URL` names its coordinator.

The database of the URL has the extension and knows its workers. The role is a superuser of all
nodes. A test's database has the same name on each node, and is cloned there from that node's copy
of the template: the catalogs of Citus name nodes and shards, but no database.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.pool import NullPool

from observatory_storage import migrate
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.distribution import layout_options
from tests.servers import RUN, Server

VARIABLE = "TEST_CITUS_URL"
URL = os.environ.get(VARIABLE)
WITHOUT = f"{VARIABLE} names no coordinator"
_ADDING_NODES = 2_026_11
REFUSED_VIEWS = ("observatory_sessions", "observatory_costs_by_day")


def not_there(why: str) -> pytest.MarkDecorator:
    """Skip the test on Citus.

    Args:
        why: what is not there, or is otherwise; "What differs" in docs/citus.md has it.
    """
    return pytest.mark.skipif(bool(URL), reason=f"on Citus {why}")


def have_layout_by_default() -> None:
    """Let configurations without a layout have this one, as most tests make them."""
    os.environ["DB_LAYOUT"] = "citus"  # for programs that tests start
    PostgresConfig.model_fields["layout"].default = "citus"
    PostgresConfig.model_fields["shard_count"].default = 4
    PostgresConfig.model_rebuild(force=True)
    StorageConfig.model_rebuild(force=True)


class CitusServer(Server):
    """A coordinator with its workers."""

    @cached_property
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
        own = template not in ("template0", f"{RUN}_template")
        if own:
            self._close(template)
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY {}").format(
            sql.Identifier(name), sql.Identifier(template), sql.SQL("wal_log")
        )
        self._on_all(query)
        if own:
            opening = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true")
            self._on_all(opening.format(sql.Identifier(template)))

    def _on_all(self, query: sql.Composed) -> None:
        """Run a statement on all nodes at the same time."""

        def run(conninfo: str) -> None:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                # Citus' own process may come back between the end of others and the change.
                for _ in range(10):
                    with suppress(psycopg.errors.ObjectInUse):
                        connection.execute(query)
                        return
                connection.execute(query)

        with ThreadPoolExecutor() as threads:
            list(threads.map(run, self._nodes("postgres")))

    def prepare(self, name: str) -> None:
        """Have a database that is on all nodes be a cluster of its own."""
        for conninfo in self._nodes(name):
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION citus")
        with (
            psycopg.connect(self.url) as lock,
            psycopg.connect(self.url_of(name), autocommit=True) as connection,
        ):
            # One process of the tests at a time, since it changes roles, which databases share.
            lock.execute("SELECT pg_advisory_xact_lock(%s)", [_ADDING_NODES])
            connection.execute("SELECT citus_set_coordinator_host(%s, %s)", [self.host, self.port])
            for host, port in self.workers:
                connection.execute("SELECT citus_add_node(%s, %s)", [host, port])

    def drop(self, name: str) -> None:
        query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        self._on_all(query)

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
            self._close(name)
            yield name
        finally:
            self.drop(name)

    def _close(self, name: str) -> None:
        """Let nobody connect, as a database that is in use cannot be cloned."""
        close = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
        for conninfo in self._nodes("postgres"):
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute(close)
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )

    def _nodes(self, database: str) -> list[str]:
        own: dict[str, Any] = conninfo_to_dict(self.url)
        return [
            make_conninfo(**{**own, "dbname": database, "host": host, "port": port})
            for host, port in ((self.host, self.port), *self.workers)
        ]
