"""What an application has set up for itself does not change what is stored and read."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import StrDumper, TextLoader

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    SpanFilters,
    StorageConfig,
    StoragePool,
    TraceFilters,
    TraceWriter,
)

AT = datetime(2026, 3, 4, 12, tzinfo=UTC)
TRACE_ID = uuid.UUID(int=7).hex
# What an engine of an application may say for all its statements and connections.
ENGINES: dict[str, dict[str, Any]] = {
    "AUTOCOMMIT": {"isolation_level": "AUTOCOMMIT"},
    "SERIALIZABLE": {"isolation_level": "SERIALIZABLE"},
    "autocommit of the driver": {"connect_args": {"autocommit": True}},
    "stream_results": {"execution_options": {"stream_results": True}},
    "yield_per": {"execution_options": {"yield_per": 10}},
    "LATIN1": {"connect_args": {"client_encoding": "LATIN1"}},
    "one connection": {"pool_size": 1, "max_overflow": 0},
}


def span(**values: Any) -> dict[str, Any]:
    return {
        "trace_id": TRACE_ID,
        "span_id": "1" * 16,
        "name": "café 日本",
        "service_name": "service",
        "start_time": AT,
        "end_time": AT,
        **values,
    }


@pytest.fixture(params=list(ENGINES.values()), ids=list(ENGINES))
def application(request: pytest.FixtureRequest, database_url: str) -> Iterator[sa.Engine]:
    url = "postgresql+psycopg://" + database_url.partition("://")[2]
    engine = sa.create_engine(url, **request.param)
    yield engine
    engine.dispose()


def state_of(engine: sa.Engine) -> tuple[Any, ...]:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return driver.autocommit, driver.isolation_level, driver.info.encoding


def test_an_engine_of_the_application_writes_and_reads(application: sa.Engine) -> None:
    before = state_of(application)
    with StoragePool.from_engine(application) as pool:
        pool.run_migrations()
        with TraceWriter(pool) as writer:
            writer.write_span(span())
            assert writer.flush().committed == 1
        assert CopyWriter(pool).write_spans([span(), span(span_id="2" * 16)]) == 2
        with pool.unit_of_work() as uow:
            assert uow.traces.delete(TRACE_ID).spans == 2
        with pool.unit_of_work() as uow:  # the deletion was not committed
            spans = uow.traces.get_spans(TRACE_ID)
            assert [one.name for one in spans] == ["café 日本"] * 2
            assert len(list(uow.traces.iterate_spans(SpanFilters(trace_id=TRACE_ID)))) == 2
            uow.traces.delete(TRACE_ID)
            uow.commit()
        with pool.unit_of_work() as uow:
            assert len(uow.traces.list()) == 0
    assert state_of(application) == before


def test_loaders_and_dumpers_of_a_connection_change_nothing(database_url: str) -> None:
    class Shouting(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.upper())

    def set_up(connection: psycopg.Connection[Any], _: object) -> None:
        connection.adapters.register_loader("numeric", FloatLoader)
        for name in ("int8", "uuid", "jsonb", "timestamptz", "float8"):
            connection.adapters.register_loader(name, TextLoader)
        connection.adapters.register_dumper(str, Shouting)

    engine = sa.create_engine("postgresql+psycopg://" + database_url.partition("://")[2])
    sa.event.listen(engine, "connect", set_up)
    with StoragePool.from_engine(engine) as pool:
        for cost in ("0.1", "0.7"):  # the second time the stored version is read and replaced
            with TraceWriter(pool) as writer:
                writer.write_span(span(attributes={"llm.cost.total": cost, "n": 2**40}))
        with pool.unit_of_work() as uow:
            (found,) = uow.traces.get_spans(TRACE_ID)
            assert (found.total_cost_usd, found.trace_id) == (Decimal("0.7"), uuid.UUID(TRACE_ID))
            assert (found.name, found.start_time, found.attributes["n"]) == ("café 日本", AT, 2**40)
            stats = uow.traces.get_stats(TraceFilters(service_name="service"))
            assert (stats.span_count, stats.total_cost_usd) == (1, Decimal("0.7"))
            copied = uow.traces.iterate_spans(name="café 日本", start_time=AT).to_arrow().read_all()
            assert copied["total_cost_usd"].to_pylist() == [0.7]
    engine.dispose()


GLOBAL = """
import sys
import psycopg
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader
psycopg.adapters.register_loader("numeric", FloatLoader)
for name in ("int8", "uuid", "timestamptz", "jsonb", "text"):
    psycopg.adapters.register_loader(name, TextLoader)
from tests.test_application_settings import check_round_trip
check_round_trip(sys.argv[1])
"""


def check_round_trip(url: str) -> None:
    """Run in another process, whose global adapters are not psycopg's own."""
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool:
        for cost in ("0.1", "0.7"):
            with TraceWriter(pool) as writer:
                writer.write_span(span(attributes={"llm.cost.total": cost}))
        with pool.unit_of_work() as uow:
            (found,) = uow.traces.get_spans(TRACE_ID)
            assert found.total_cost_usd == Decimal("0.7")
            assert found.trace_id == uuid.UUID(TRACE_ID)
            assert found.start_time == AT
            assert found.attributes == {"llm.cost.total": "0.7"}


def test_loaders_registered_for_all_connections_change_nothing(database_url: str) -> None:
    subprocess.run([sys.executable, "-c", GLOBAL, database_url], check=True, timeout=60)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_the_role_s_encoding_changes_nothing(
    encoding: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET client_encoding TO {encoding}')
    check_round_trip(database_url)
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(database_url))) as pool:
        assert CopyWriter(pool).write_spans([span(span_id="2" * 16)]) == 1
        with pool.unit_of_work() as uow:
            assert {one.name for one in uow.traces.get_spans(TRACE_ID)} == {"café 日本"}
