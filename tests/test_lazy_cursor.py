"""Cursors describe their columns as psycopg's own do, whenever they are asked."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import StoragePool
from observatory_storage.lazy_cursor import LazyCursor


def test_the_pool_has_lazy_cursors(pool: StoragePool) -> None:
    with pool.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        assert type(driver.cursor()) is LazyCursor


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 AS one, 'two' AS two, now() AS three, NULL::numeric(8, 2) AS four",
        "SELECT 1 WHERE false",
        "SELECT",
        "SET LOCAL work_mem = '8MB'",
        "VALUES (1), (2)",
    ],
)
def test_the_description_is_that_of_psycopg(pool: StoragePool, statement: str) -> None:
    with pool.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        lazy, own = LazyCursor(driver), psycopg.Cursor(driver)
        found: Any = lazy.description
        assert found is None
        lazy.execute(statement)
        own.execute(statement)
        found, expected = lazy.description, own.description
        if expected is None:
            assert found is None
            return
        assert len(found) == len(expected)
        assert bool(found) == bool(expected)
        assert [tuple(column) for column in found] == [tuple(column) for column in expected]
        assert [column.name for column in found[:2]] == [column.name for column in expected[:2]]


def test_a_statement_whose_columns_change_is_described_anew(pool: StoragePool) -> None:
    with pool.engine.connect() as connection:
        for names in (["a"], ["b", "c"]):
            listed = ", ".join(f"1 AS {name}" for name in names)
            connection.execute(sa.text(f"CREATE TEMPORARY TABLE changing AS SELECT {listed}"))
            assert [*connection.execute(sa.text("SELECT * FROM changing")).keys()] == names
            connection.execute(sa.text("DROP TABLE changing"))
