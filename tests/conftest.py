"""Fixtures: one server for each session, one migrated template, one database for each test.

``TEST_DATABASE_URL`` and ``TEST_REDIS_URL`` name servers to use instead of embedded ones. The role
needs CREATEDB. Existing databases are never changed.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import hypothesis
import pytest
import redis
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from observatory_embedded import EmbeddedPostgres, EmbeddedValkey
from tests import citus, shard_rules
from tests.servers import FAST, RUN, Server, SharedServer, in_utf8, migrated

if TYPE_CHECKING:
    import sqlalchemy as sa

    from observatory_storage.pool import StoragePool

# Let pytest explain the assertions of these helper modules.
pytest.register_assert_rewrite("tests.soak.verify", "tests.writers.trace_model")

# A background job of a shell ignores SIGINT. Processes that the tests start and interrupt would
# inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Thousands of tests make and drop many objects: the default of 700 costs a fifteenth of the time.
gc.set_threshold(20_000, 20, 50)

# Examples have no deadline, since a busy machine is not a defect.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def _managed_randomness() -> None:
    """Let Hypothesis find the random state of NumPy, which it cannot in a frozen heap."""
    importlib.import_module("numpy")

    @hypothesis.settings(max_examples=1, database=None)
    @hypothesis.given(hypothesis.strategies.none())
    def example(_: None) -> None:
        pass

    example()


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap(_managed_randomness: None) -> None:
    """Exclude the thousands of collected tests from garbage collection, which would search them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_embedded() -> Iterator[EmbeddedPostgres]:
    """The embedded server that all tests share, unless a server was given."""
    with EmbeddedPostgres(settings=FAST, in_memory=True) as embedded:
        yield embedded


@pytest.fixture(scope="session")
def shard_rules_listener() -> shard_rules.Listener:
    """Checks the statements of all tests of this process."""
    listener = shard_rules.Listener()
    listener.listen()
    return listener


@pytest.fixture(autouse=True)
def _statements_keep_the_rules_of_shards(
    shard_rules_listener: shard_rules.Listener,
) -> Iterator[None]:
    """Fail if a statement of the test would be refused where Citus distributes the tables."""
    yield
    broken = dict(shard_rules_listener.broken)
    shard_rules_listener.broken.clear()
    if broken:
        told = "\n\n".join(f"{rules}: {text}" for text, rules in broken.items())
        pytest.fail(f"not for tables with shards (tests/shard_rules.py):\n{told}")


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server that all tests share. To stop a server, use `embedded_server`."""
    given = os.environ.get("TEST_DATABASE_URL")
    if citus.URL:
        yield citus.CitusServer(citus.URL, embedded=False)
        return
    if given:
        with in_utf8(given) as server:
            yield server
        return
    embedded: EmbeddedPostgres = request.getfixturevalue("shared_embedded")
    with closing(SharedServer(embedded.url, embedded=True)) as server:
        yield server


postgresql_noproc = factories.postgresql_noproc(
    dbname=RUN, load=[migrated], depends_on="postgres_server"
)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the migrated database from which others are cloned."""
    if isinstance(postgres_server, citus.CitusServer):
        with postgres_server.template() as name:
            yield name
        return
    postgresql_noproc: NoopExecutor = request.getfixturevalue("postgresql_noproc")
    yield postgresql_noproc.template_dbname
    # Before pytest-postgresql does: it cannot drop it, without a superuser, from under autovacuum.
    postgres_server.drop_template(postgresql_noproc.template_dbname)


@pytest.fixture
def database_url(postgres_server: Server, migrated_template: str) -> Iterator[str]:
    """The URL of a migrated database without rows, for this test only."""
    with postgres_server.database(migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: Server) -> Iterator[str]:
    """The URL of an empty database that has not been migrated, for this test only."""
    with postgres_server.database("template0") as url:
        yield url


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[sa.Engine]:
    """An engine on `empty_database_url`."""
    from tests.catalog import engine_for

    engine = engine_for(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    """A pool on `database_url`."""
    from observatory_storage.config import PostgresConfig, StorageConfig
    from observatory_storage.pool import StoragePool

    config = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with StoragePool(config) as pool:
        yield pool


@pytest.fixture(scope="module")
def shared_pool(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """A pool on a migrated database of this module's own: only to be read by its tests."""
    from observatory_storage.config import PostgresConfig, StorageConfig
    from observatory_storage.pool import StoragePool

    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as made:
            yield made


@pytest.fixture
def two_days(pool: StoragePool) -> StoragePool:
    """A pool with rows of a day that is over and of one that is not."""
    from tests.two_days import write_two_days

    write_two_days(pool)
    return pool


@pytest.fixture
def embedded_server() -> Iterator[EmbeddedPostgres]:
    """A server for this test only, to stop and to kill. It has not been migrated."""
    if citus.URL:
        pytest.skip("a server without Citus")
    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        yield server


@pytest.fixture(scope="session")
def _shared_valkey() -> Iterator[str]:
    with EmbeddedValkey() as server:
        yield server.url


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a Redis-compatible server that the tests share."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    url: str = request.getfixturevalue("_shared_valkey")
    yield url
    with redis.Redis.from_url(url) as client:
        client.flushall()


@pytest.fixture
def embedded_redis() -> Iterator[EmbeddedValkey]:
    """A Redis-compatible server for this test only, to stop and to kill."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if Zstandard were not installed."""
    for name in ("compression", "compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    # `from backports import zstd` takes it from the package, if it has been imported before.
    if (package := sys.modules.get("backports")) is not None:
        monkeypatch.delattr(package, "zstd", raising=False)
    zstd_module = importlib.import_module("observatory_storage.payloads").zstd_module
    zstd_module.cache_clear()
    yield
    zstd_module.cache_clear()
