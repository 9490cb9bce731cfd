"""The ways to write the same rows: ours, the limit, and what a user would write otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson
import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import insert
from sqlalchemy.orm import Session

from observatory_storage import (
    CopyWriter,
    LogWriter,
    MetricWriter,
    StoragePool,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.rows import COLUMNS
from observatory_storage.writers.tables import TABLES
from tests.benchmarks.workload import Workload, batches

Run = Callable[[], None]


@dataclass(frozen=True)
class Technique:
    """One way to write a workload.

    Attributes:
        name: as the report shows it.
        prepare: makes, outside the measured time, what is then measured.
    """

    name: str
    prepare: Callable[[StoragePool, Workload, int], Run]


def limit(pool: StoragePool, load: Workload, batch: int) -> Run:
    """Binary COPY whose bytes the server itself has encoded: no client can be faster."""
    columns = ", ".join(COLUMNS[load.table])
    streams: list[list[bytes]] = []
    with pool.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        for rows in batches(load.prepared, batch):
            with driver.cursor() as cursor:
                cursor.execute(f"CREATE TEMP TABLE encoded (LIKE {load.table})")
                cursor.execute("ALTER TABLE encoded ALTER created_at DROP NOT NULL")
                _copy(cursor, "encoded", load.table, rows)
                with cursor.copy(f"COPY encoded ({columns}) TO STDOUT (FORMAT BINARY)") as out:
                    content = b"".join(bytes(part) for part in out)
                cursor.execute("DROP TABLE encoded")
                size = 128 * 1024
                streams.append([content[at : at + size] for at in range(0, len(content), size)])
            connection.rollback()

    def run() -> None:
        with pool.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            for blocks in streams:
                statement = f"COPY {load.table} ({columns}) FROM STDIN (FORMAT BINARY)"
                with driver.cursor() as cursor, cursor.copy(statement) as copy:
                    for block in blocks:
                        copy.write(block)
                driver.commit()

    return run


def _copy(cursor: Any, into: str, table: str, rows: Any) -> None:
    columns = ", ".join(COLUMNS[table])
    with cursor.copy(f"COPY {into} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(TABLES[table].types)
        for row in rows:
            copy.write_row(row.values)


_COPY_METHOD: dict[str, Callable[[CopyWriter, Any], int]] = {
    "trace_spans": CopyWriter.write_spans,
    "logs": CopyWriter.write_logs,
    "metric_data_points": CopyWriter.write_data_points,
}


def copy_writer(method: Any) -> Callable[[StoragePool, Workload, int], Run]:
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Run:
        writer = CopyWriter(pool, method=method)
        parts = batches(load.rows, batch)

        def run() -> None:
            for part in parts:
                _COPY_METHOD[load.table](writer, part)

        return run

    return prepare


def buffered(threads: int = 1) -> Callable[[StoragePool, Workload, int], Run]:
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Run:
        config = WriterConfig(batch_size=batch, max_concurrency=threads, flush_interval_secs=None)

        def run() -> None:
            match load.table:
                case "trace_spans":
                    with TraceWriter(pool, config) as spans:
                        spans.write_spans(load.rows)
                        spans.flush()
                case "logs":
                    with LogWriter(pool, config) as records:
                        records.write_logs(load.rows)
                        records.flush()
                case _:
                    with MetricWriter(pool, config) as points:
                        points.write_data_points(load.rows)
                        points.flush()

        return run

    return prepare


def orm_add_all(pool: StoragePool, load: Workload, batch: int) -> Run:
    model = TABLES[load.table].model
    parts = batches(load.complete(), batch)

    def run() -> None:
        for part in parts:
            with Session(pool.engine) as session:
                session.add_all([model(**row) for row in part])
                session.commit()

    return run


def core_executemany(pool: StoragePool, load: Workload, batch: int) -> Run:
    table = TABLES[load.table].table
    parts = batches(load.complete(), batch)

    def run() -> None:
        for part in parts:
            with pool.engine.begin() as connection:
                connection.execute(insert(table), part)

    return run


def psycopg_executemany(pool: StoragePool, load: Workload, batch: int) -> Run:
    columns = COLUMNS[load.table]
    marks = ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO {load.table} ({', '.join(columns)}) VALUES ({marks})"
    parts = batches(load.tuples(), batch)
    address = _address(pool)

    def run() -> None:
        with psycopg.connect(address) as connection:
            for part in parts:
                with connection.cursor() as cursor:
                    cursor.executemany(
                        statement,
                        [
                            [
                                Jsonb(v, orjson.dumps) if isinstance(v, (dict, list)) else v
                                for v in row
                            ]
                            for row in part
                        ],
                    )
                connection.commit()

    return run


def asyncpg_copy(pool: StoragePool, load: Workload, batch: int) -> Run:
    parts = batches(load.tuples(), batch)
    address = _address(pool)

    async def write() -> None:
        connection = await asyncpg.connect(address)
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda value: b"\x01" + orjson.dumps(value),
            decoder=lambda value: orjson.loads(value[1:]),
        )
        for part in parts:
            await connection.copy_records_to_table(
                load.table, records=part, columns=COLUMNS[load.table]
            )
        await connection.close()

    return lambda: asyncio.run(write())


def _address(pool: StoragePool) -> str:
    url = pool.engine.url.set(drivername="postgresql").difference_update_query(["application_name"])
    return url.render_as_string(hide_password=False)


LIMIT = Technique("limit: pre-encoded binary COPY", limit)
OURS = (
    Technique("CopyWriter, copy", copy_writer("copy")),
    Technique("CopyWriter, insert", copy_writer("insert")),
    Technique("buffered writer + flush", buffered()),
)
PEERS = (
    Technique("asyncpg copy_records_to_table", asyncpg_copy),
    Technique("Core insert() executemany", core_executemany),
    Technique("psycopg executemany", psycopg_executemany),
    Technique("ORM add_all", orm_add_all),
)
