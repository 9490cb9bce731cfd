"""A process that forks goes on on both sides: the child makes connections of its own."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from observatory_storage.config import PoolConfig, PostgresConfig, RedisConfig, StorageConfig
from observatory_storage.pool import StoragePool

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def config_for(url: str, redis_url: str | None = None) -> StorageConfig:
    return StorageConfig(
        postgres=PostgresConfig.from_url(url),
        pool=PoolConfig(min_connections=2),
        redis=RedisConfig(url=SecretStr(redis_url) if redis_url else None),
    )


def backend_of(pool: StoragePool) -> int:
    with pool.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def in_child(work: Callable[[], object]) -> None:
    """Run it in a forked process, which must end well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child ends here whatever happens
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("owned", [True, False])
def test_child_opens_its_own_connections(database_url: str, owned: bool) -> None:
    with ExitStack() as pools:
        if owned:
            pool = pools.enter_context(StoragePool(config_for(database_url)))
        else:
            url = "postgresql+psycopg://" + database_url.partition("://")[2]
            application = sa.create_engine(url)
            pools.callback(application.dispose)
            pool = pools.enter_context(StoragePool.from_engine(application))
        with pool.unit_of_work() as uow:
            held = uow.session.scalar(sa.text("SELECT pg_backend_pid()"))
            idle = backend_of(pool)

            def work() -> None:
                assert backend_of(pool) not in (held, idle)
                with pool.unit_of_work() as own:
                    other = own.session.scalar(sa.text("SELECT pg_backend_pid()"))
                    assert other not in (held, idle)
                pool.close()

            in_child(work)
            # The parent's transaction and its idle connection are as they were.
            assert uow.session.scalar(sa.text("SELECT pg_backend_pid()")) == held
            assert backend_of(pool) == idle


def test_child_of_multiprocessing_can_use_the_pool(database_url: str) -> None:
    with StoragePool(config_for(database_url)) as pool:
        own = backend_of(pool)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        children = [context.Process(target=lambda: answers.put(backend_of(pool))) for _ in range(2)]
        for child in children:
            child.start()
        found = {answers.get(timeout=30) for _ in children}
        for child in children:
            child.join(timeout=30)
        assert len(found | {own}) == 3
        assert backend_of(pool) == own


def test_child_opens_its_own_connections_to_redis(database_url: str, redis_url: str) -> None:
    with StoragePool(config_for(database_url, redis_url)) as pool:
        assert pool.redis is not None
        client = pool.redis
        own = client.client_id()

        def work() -> None:
            assert client.client_id() != own

        in_child(work)
        assert client.client_id() == own
