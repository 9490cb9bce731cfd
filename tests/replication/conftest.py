"""A pair of servers for the session, made once, and a database on it for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import StoragePool
from tests.replication.pairs import Database, Pair, execute
from tests.servers import FAST, Server


@pytest.fixture(scope="session")
def former_primary(
    request: pytest.FixtureRequest, migrated_template: str
) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A server with a migrated template, whose copies are the pairs, and the template's name."""
    if not os.environ.get("TEST_DATABASE_URL"):
        yield request.getfixturevalue("shared_embedded"), migrated_template
        return
    from tests.servers import migrated

    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        own = Server(server.url, embedded=True)
        with own.database("template0") as url:
            from tests.replication.pairs import url_name

            migrated(own.host, own.port, own.user, url_name(url), None)
            yield server, url_name(url)


def _pair(former: tuple[EmbeddedPostgres, str]) -> Iterator[Pair]:
    # A copy of a migrated server takes a fraction of the time of migrating one.
    server, template = former
    with EmbeddedPostgres(settings=FAST, in_memory=True, standby_of=server) as primary:
        primary.promote()
        settings = {**FAST, "cluster_name": "standby"}
        with EmbeddedPostgres(settings=settings, in_memory=True, standby_of=primary) as standby:
            yield Pair(primary, standby, template)


@pytest.fixture(scope="session")
def pair(former_primary: tuple[EmbeddedPostgres, str]) -> Iterator[Pair]:
    """A primary and a standby. Both keep running."""
    yield from _pair(former_primary)


@pytest.fixture
def frail_pair(former_primary: tuple[EmbeddedPostgres, str]) -> Iterator[Pair]:
    """A primary and a standby of this test only, to stop and to promote."""
    yield from _pair(former_primary)


@pytest.fixture
def database(pair: Pair) -> Iterator[Database]:
    """A migrated database of this test only."""
    with pair.database() as database:
        yield database


@pytest.fixture
def refusing(database: Database) -> Iterator[Database]:
    """The same database for a role that may not ask for positions, as on Aurora nobody may."""
    functions = (
        *("pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_last_wal_replay_lsn"),
        *("pg_last_wal_receive_lsn", "pg_last_xact_replay_timestamp", "pg_control_system"),
    )
    execute(
        database.url,
        "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_data, pg_write_all_data",
        *(f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC" for name in functions),
    )
    database.pair.catch_up()
    urls = (url.replace("//postgres@", "//watcher@") for url in (database.url, database.read_url))
    yield Database(database.pair, *urls)
    execute(database.url, "DROP OWNED BY watcher", "DROP ROLE watcher")


@pytest.fixture
def pool(database: Database) -> Iterator[StoragePool]:
    """A pool that reads from the standby, on `database`."""
    with database.pool() as pool:
        yield pool
