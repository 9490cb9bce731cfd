"""A standby of an embedded server follows it, and can take its place."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres, EmbeddedServerError
from observatory_storage import ValidationError
from tests.servers import FAST


def value(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_standby_follows_survives_a_restart_and_is_promoted() -> None:
    with EmbeddedPostgres(settings=FAST, in_memory=True) as primary:
        with psycopg.connect(primary.url) as connection:
            connection.execute("CREATE TABLE t (a int)")
        with EmbeddedPostgres(settings=FAST, in_memory=True, standby_of=primary) as standby:
            assert value(standby, "SELECT pg_is_in_recovery()") is True
            standby.stop()
            with psycopg.connect(primary.url) as connection:
                connection.execute("INSERT INTO t VALUES (1)")
            standby.start()
            while value(standby, "SELECT count(*) FROM t") == 0:
                time.sleep(0.01)
            primary.stop()
            standby.promote()
            with psycopg.connect(standby.url) as connection:
                connection.execute("INSERT INTO t VALUES (2)")
            assert value(standby, "SELECT sum(a) FROM t") == 3
            with pytest.raises(EmbeddedServerError, match="cannot be promoted"):
                standby.promote()


def test_a_standby_is_made_of_a_server_without_a_password(tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(password="secret", settings=FAST, in_memory=True) as primary,
        pytest.raises(ValidationError, match="must be a server without a password"),
    ):
        EmbeddedPostgres(tmp_path, standby_of=primary)
