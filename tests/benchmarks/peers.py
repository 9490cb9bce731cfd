"""Techniques that a user would write without this package. They get complete, unchecked rows.

None of them merges traces, and an existing row makes their batch fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
import orjson
import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import insert
from sqlalchemy.orm import Session

from observatory_storage import StoragePool
from observatory_storage.tables import TABLES
from tests.benchmarks.technique import Run, Technique, address, in_turn, timed
from tests.benchmarks.workload import Workload, batches

__all__ = ["ASYNCPG", "CORE", "PEERS"]


@contextmanager
def orm_add_all(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    model = TABLES[load.table].model

    def write(rows: list[dict[str, Any]]) -> None:
        with Session(pool.engine) as session:
            session.add_all([model(**row) for row in rows])
            session.commit()

    with in_turn(write, batches(load.complete(), batch)) as run:
        yield run


@contextmanager
def core_executemany(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    statement = insert(TABLES[load.table].table)

    def write(rows: list[dict[str, Any]]) -> None:
        with pool.engine.begin() as connection:
            connection.execute(statement, rows)

    with in_turn(write, batches(load.complete(), batch)) as run:
        yield run


@contextmanager
def psycopg_executemany(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    columns = TABLES[load.table].columns
    marks = ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO {load.table} ({', '.join(columns)}) VALUES ({marks})".encode()

    def adapted(value: Any) -> Any:
        return Jsonb(value, orjson.dumps) if isinstance(value, (dict, list)) else value

    with psycopg.connect(address(pool)) as connection:

        def write(rows: list[tuple[Any, ...]]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(statement, [[adapted(value) for value in row] for row in rows])
            connection.commit()

        with in_turn(write, batches(load.tuples(), batch)) as run:
            yield run


@contextmanager
def asyncpg_copy(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    parts = batches(load.tuples(), batch)
    columns = TABLES[load.table].columns
    with asyncio.Runner() as runner:
        connection = runner.run(_asyncpg_connection(address(pool)))

        def write(rows: list[tuple[Any, ...]]) -> None:
            runner.run(connection.copy_records_to_table(load.table, records=rows, columns=columns))

        try:
            yield lambda: [timed(write, part) for part in parts]
        finally:
            runner.run(connection.close())


async def _asyncpg_connection(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda value: orjson.loads(value[1:]),
    )
    return connection


CORE: Final = Technique("Core insert() executemany", core_executemany, is_slow=True)
ASYNCPG: Final = Technique("asyncpg copy_records_to_table", asyncpg_copy)
PEERS: Final = (
    ASYNCPG,
    CORE,
    Technique("psycopg executemany", psycopg_executemany, is_slow=True),
    Technique("ORM add_all", orm_add_all, is_slow=True),
)
