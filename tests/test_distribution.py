"""The layout of tables, as far as one server tells. What needs a cluster is in test_citus.py."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg

from observatory_storage import migrate
from observatory_storage.by_layout import ByLayout
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.distribution import compile_for, planned_rows
from observatory_storage.errors import ConfigError, MigrationError
from observatory_storage.pool import StoragePool
from observatory_storage.storing.conflict_rules import TARGETS
from tests import citus
from tests.catalog import engine_for

pytestmark = pytest.mark.skipif(bool(citus.URL), reason="is about a server without Citus")

ON_CITUS = PostgresConfig(layout="citus")


WITH_VALUES = {"literal_binds": True}


def new_dialect() -> Any:
    return psycopg.dialect()  # type: ignore[no-untyped-call]


def config_of(url: str) -> StorageConfig:
    return StorageConfig(postgres=PostgresConfig.from_url(url, layout="citus"))


def test_a_pool_refuses_tables_of_the_other_layout(database_url: str) -> None:
    with pytest.raises(ConfigError, match="not distributed: run `observatory-storage migrate`"):
        StoragePool(config_of(database_url))
    engine = engine_for(database_url)
    pool = StoragePool.from_engine(engine, config_of(database_url))
    with pool, pool.unit_of_work() as work, pytest.raises(ConfigError, match="DB_LAYOUT=plain"):
        work.traces.list()
    engine.dispose()


def test_a_database_without_the_extension_is_not_distributed(
    empty: sa.Engine, empty_database_url: str
) -> None:
    pool = StoragePool(config_of(empty_database_url))
    with pool, pytest.raises(MigrationError, match="CREATE EXTENSION citus"):
        pool.run_migrations()
    assert migrate.current(empty) is None


def test_a_statement_is_compiled_for_the_layout() -> None:
    column: sa.ColumnElement[Any] = sa.column("a", sa.Integer)
    either = ByLayout(sa.or_(column == 1, column == 2), sa.or_(column == 3, column == 4))
    statement = sa.select(column).where(column > 0, either)
    plain, sharded = new_dialect(), new_dialect()
    compile_for(plain, PostgresConfig())
    compile_for(sharded, ON_CITUS)
    assert str(statement.compile(dialect=plain, compile_kwargs=WITH_VALUES)).endswith(
        "a > 0 AND (a = 1 OR a = 2)"
    )
    assert str(statement.compile(dialect=sharded, compile_kwargs=WITH_VALUES)).endswith(
        "a > 0 AND (a = 3 OR a = 4)"
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_on_conflict_has_no_parameters(target: Any) -> None:
    for statement in (target.merge, target.insert_or_merge):
        _, _, conflict = str(statement.compile(dialect=new_dialect())).partition("ON CONFLICT")
        assert conflict
        assert "%(" not in conflict


def test_the_rows_that_shards_expect_are_added_up() -> None:
    plain = [{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 7}}]
    assert planned_rows(plain) == 7
    tasks = [{"Remote Plan": [[{"Plan": {"Plan Rows": rows}}]]} for rows in (3, 4)]
    job = {"Job": {"Task Count": 2, "Tasks": tasks}}
    assert planned_rows([{"Plan": {"Plan Rows": 100_000, "Distributed Query": job}}]) == 7
