"""A server to stop, to kill and to cut off, and databases on it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from observatory_embedded import EmbeddedPostgres
from tests.servers import FAST, Server
from tests.soak.scale import FULL
from tests.soak.troubles import WRITER
from tests.writers.helpers import quick_pool


@pytest.fixture(scope="session")
def frail_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop, if it starts it again; never a given one."""
    # Deadlocks are made here, and need not take their second to be found.
    settings = {**FAST, "deadlock_timeout": "20ms"}
    with EmbeddedPostgres(settings=settings, in_memory=not FULL) as server:
        yield server


@pytest.fixture(scope="session")
def frail_template(frail_server: EmbeddedPostgres) -> Iterator[str]:
    with Server(frail_server.url, embedded=True).database("template0") as url:
        with quick_pool(url) as pool:
            pool.run_migrations()
        with psycopg.connect(url) as connection:
            connection.execute(f"CREATE ROLE {WRITER} LOGIN IN ROLE postgres")
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture
def frail_url(frail_server: EmbeddedPostgres, frail_template: str) -> Iterator[str]:
    """The URL of a migrated database on the frail server, this test's alone."""
    with Server(frail_server.url, embedded=True).database(frail_template) as url:
        yield url
        frail_server.start()  # where a test has failed meanwhile
