"""Pools on an engine of the application return UTC, and do not change the engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import ConfigError, PoolError, StorageError
from observatory_storage.models import Trace
from observatory_storage.pool import StoragePool

MOMENT = datetime(2024, 5, 17, 1, 2, 3, 456789, tzinfo=UTC)


@pytest.fixture
def application(database_url: str) -> Iterator[sa.Engine]:
    """An engine of an application."""
    engine = sa.create_engine("postgresql+psycopg://" + database_url.partition("://")[2])
    yield engine
    engine.dispose()


def config_for(url: str) -> StorageConfig:
    return StorageConfig(postgres=PostgresConfig.from_url(url))


def set_database_to(engine: sa.Engine, **settings: str) -> None:
    with engine.begin() as connection:
        name = connection.exec_driver_sql("SELECT quote_ident(current_database())").scalar()
        for setting, value in settings.items():
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting} TO '{value}'")
    engine.dispose()


def check_times_read_by(pool: StoragePool) -> None:
    moments = list(_times_read_by(pool))
    assert moments == [MOMENT] * 5
    assert {moment.tzinfo for moment in moments} == {UTC}


def _times_read_by(pool: StoragePool) -> Iterator[datetime]:
    """A time that is read by the ORM, by SQL, in an array and by a server-side cursor."""
    key = UUID(int=1)
    with pool.unit_of_work() as uow:
        uow.session.add(Trace(id=key, trace_id=key.hex, service_name="service", start_time=MOMENT))
        uow.session.flush()
        uow.session.expunge_all()
        trace = uow.session.get_one(Trace, key)
        yield trace.start_time
        query = sa.text("SELECT start_time, ARRAY[start_time] FROM public.traces")
        for options in ({}, {"stream_results": True, "yield_per": 10}):
            for moment, moments in uow.session.execute(query, execution_options=options):
                yield moment
                yield moments[0]


def test_times_are_utc_whatever_the_time_zone_of_the_server(
    database_url: str, application: sa.Engine
) -> None:
    set_database_to(application, timezone="Asia/Kolkata", datestyle="SQL, DMY")
    with StoragePool(config_for(database_url)) as pool:
        check_times_read_by(pool)
        with pool.engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            for binary in (False, True):
                cursor = raw.cursor(binary=binary)
                [moment] = cursor.execute("SELECT %s::timestamptz", [MOMENT]).fetchone()
                assert (moment, moment.tzinfo) == (MOMENT, UTC)


def test_times_are_utc_only_in_our_use_of_the_engine(
    application: sa.Engine,
) -> None:
    set_database_to(application, timezone="Asia/Kolkata")
    with StoragePool.from_engine(application) as pool:
        check_times_read_by(pool)
    with application.connect() as connection:
        own = connection.execute(sa.select(sa.literal(MOMENT, sa.DateTime(timezone=True))))
        assert str(own.scalar_one().tzinfo) == "Asia/Kolkata"


def test_close_leaves_the_engine_of_the_application_open(application: sa.Engine) -> None:
    config = StorageConfig(postgres=PostgresConfig(statement_timeout_ms=1234, schema="obs"))
    with StoragePool.from_engine(application, config) as pool:
        assert pool.config is config
        pool.run_migrations()
        with pool.unit_of_work() as uow:
            assert uow.session.scalar(sa.text("SHOW statement_timeout")) == "1234ms"
            assert uow.session.scalars(sa.select(Trace)).all() == []
            assert pool.stats().active == 1
        assert pool.engine.pool is application.pool
        assert "obs" in sa.inspect(application).get_schema_names()
    with pytest.raises(PoolError, match="closed"):
        pool.unit_of_work()
    with application.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert "schema_translate_map" not in connection.get_execution_options()
        with pytest.raises(sa.exc.ProgrammingError):
            connection.exec_driver_sql("SELECT * FROM obs.nothing")


def test_json_is_repaired_only_in_our_use_of_the_engine(application: sa.Engine) -> None:
    attributes = {"nul": "a\0b", "nan": float("nan"), "big": 2**70}
    repaired = {"nul": "a\N{REPLACEMENT CHARACTER}b", "nan": "NaN", "big": 2**70}
    row = {"trace_id": "t", "service_name": "s", "start_time": MOMENT, "attributes": attributes}
    with StoragePool.from_engine(application, schema="public") as pool:
        with pool.unit_of_work() as uow:
            uow.session.add(Trace(id=UUID(int=2), **row))
            uow.commit()
        with pool.unit_of_work() as uow:
            assert uow.session.get_one(Trace, UUID(int=2)).attributes == repaired
    with Session(application) as session:
        session.add(Trace(id=UUID(int=3), **row))
        with pytest.raises(sa.exc.DataError):
            session.commit()


def test_pool_on_the_engine_of_another_pool_leaves_it_open(database_url: str) -> None:
    with StoragePool(config_for(database_url)) as pool:
        StoragePool.from_engine(pool.engine).close()
        assert pool.health_check().status == "healthy"


@pytest.mark.parametrize("options", [{}, {"isolation_level": "READ COMMITTED"}], ids=str)
def test_the_transaction_on_a_shared_connection_goes_on(
    database_url: str, options: dict[str, Any]
) -> None:
    """As in tests whose engine has one connection, with a transaction that is rolled back."""
    url = "postgresql+psycopg://" + database_url.partition("://")[2]
    engine = sa.create_engine(url, poolclass=sa.StaticPool, **options)
    with StoragePool.from_engine(engine) as pool, engine.connect() as mine:
        mine.exec_driver_sql("CREATE TABLE mine AS SELECT 5 AS value")
        with pool.unit_of_work() as uow:
            assert len(uow.traces.list()) == 0
            assert uow.session.scalar(sa.text("SELECT value FROM mine")) == 5
    with StoragePool.from_engine(engine) as pool, engine.connect() as mine:
        mine.exec_driver_sql("SELECT")
        with (
            pool.unit_of_work(read_only=True) as uow,
            pytest.raises(StorageError, match="that of the engine's StaticPool is within a trans"),
        ):
            uow.traces.list()
    with StoragePool.from_engine(engine) as pool, pool.unit_of_work(read_only=True) as uow:
        assert len(uow.traces.list()) == 0
    engine.dispose()


def test_schema_must_be_given_once(application: sa.Engine) -> None:
    assert StoragePool.from_engine(application, schema="obs").schema == "obs"
    with pytest.raises(ConfigError, match="not both"):
        StoragePool.from_engine(application, StorageConfig(), schema="obs")


def test_other_engines_are_refused() -> None:
    others: list[Any] = [
        sa.create_engine("sqlite://"),
        sa.create_engine("postgresql+psycopg_async://u@localhost/d"),
        "postgresql+psycopg://u@localhost/d",
    ]
    for other in others:
        with pytest.raises(ConfigError, match=r"must be an engine of sqlalchemy.create_engine"):
            StoragePool.from_engine(other)


def test_stats_of_an_unlimited_pool_have_no_maximum(database_url: str) -> None:
    url = "postgresql+psycopg://" + database_url.partition("://")[2]
    unbounded = sa.create_engine(url, poolclass=NullPool)
    stats = StoragePool.from_engine(unbounded).stats()
    assert (stats.size, stats.max, stats.utilization, stats.near_capacity) == (0, None, 0.0, False)
    bounded = sa.create_engine(url, pool_size=2, max_overflow=3)
    assert StoragePool.from_engine(bounded).stats().max == 5
