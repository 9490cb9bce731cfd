"""A temporary database exists for the length of a block."""

from __future__ import annotations

import psycopg
import pytest

from observatory_embedded import (
    EmbeddedPostgres,
    temporary_database,
)
from observatory_embedded.databases import create_database, drop_database
from observatory_storage.errors import ConnectionLost, StorageError
from tests.embedded.server_owner import (
    select_value,
)


def test_database_is_new_and_dropped_after_the_block(shared_server: EmbeddedPostgres) -> None:
    before = _databases(shared_server)
    with temporary_database(shared_server.url, prefix="mine") as url:
        name = select_value(url, "SELECT current_database()")
        assert str(name).startswith("mine_")
        assert name not in before
        still_connected = psycopg.connect(url)
    assert _databases(shared_server) == before
    still_connected.close()


def test_database_is_dropped_after_an_error(shared_server: EmbeddedPostgres) -> None:
    before = _databases(shared_server)
    with pytest.raises(KeyboardInterrupt), temporary_database(shared_server.url):
        raise KeyboardInterrupt
    assert _databases(shared_server) == before


def test_without_a_url_a_server_is_started() -> None:
    with temporary_database() as url:
        assert select_value(url, "SELECT current_setting('fsync')") == "off"


def test_existing_database_is_never_used(shared_server: EmbeddedPostgres) -> None:
    create_database(shared_server.url, "existing")
    try:
        with pytest.raises(StorageError, match="already exists"):
            create_database(shared_server.url, "existing")
    finally:
        drop_database(shared_server.url, "existing")


def test_unreachable_server_raises_connection_lost() -> None:
    with pytest.raises(ConnectionLost), temporary_database("postgresql://x@127.0.0.1:1/x"):
        pass


def _databases(server: EmbeddedPostgres) -> list[object]:
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT datname FROM pg_database ORDER BY datname").fetchall()
    return [row[0] for row in rows]
