"""The limit: the rate of the server when the client has nothing left to do."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from observatory_storage import StoragePool
from observatory_storage.rows import Row
from observatory_storage.storing.binary_copy import copy_rows
from observatory_storage.storing.conflict_rules import TARGETS
from observatory_storage.tables import TABLES
from tests.benchmarks.technique import Prepare, Run, Technique, address, in_turn
from tests.benchmarks.workload import Workload, batches

__all__ = ["LIMIT", "encoded", "limit"]

_BLOCK = 128 * 1024


def encoded(pool: StoragePool, table: str, rows: Sequence[Row]) -> bytes:
    """The rows as a binary COPY, encoded by the server."""
    columns = ", ".join(TABLES[table].columns)
    target = TARGETS[table]
    with pool.engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE TEMP TABLE {target.stage.name} (LIKE {table})")
        for column in target.table.columns:
            if column.name not in target.columns and not column.nullable:
                connection.exec_driver_sql(
                    f"ALTER TABLE {target.stage.name} ALTER {column.name} DROP NOT NULL"
                )
        copy_rows(connection, target, [row.values for row in rows], target.stage)
        driver: Any = connection.connection.driver_connection
        statement = f"COPY {target.stage.name} ({columns}) TO STDOUT (FORMAT BINARY)"
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            content = b"".join(copy)
        connection.rollback()
    return content


def limit(connections: int = 1) -> Prepare:
    """Binary COPY of encoded bytes on open connections, with a commit for each batch."""

    @contextmanager
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
        columns = ", ".join(TABLES[load.table].columns)
        statement = f"COPY {load.table} ({columns}) FROM STDIN (FORMAT BINARY)"
        streams = [
            _blocks(encoded(pool, load.table, part)) for part in batches(load.prepared, batch)
        ]
        free: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()

        def write(blocks: list[bytes]) -> None:
            connection = free.get()
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for block in blocks:
                    copy.write(block)
            free.put(connection)

        with ExitStack() as stack:
            for _ in range(connections):
                # COPY is then a transaction by itself, which saves round trips.
                opened = psycopg.connect(address(pool), autocommit=True)
                free.put(stack.enter_context(opened))
            yield stack.enter_context(in_turn(write, streams, connections))

    return prepare


def _blocks(content: bytes) -> list[bytes]:
    return [content[offset : offset + _BLOCK] for offset in range(0, len(content), _BLOCK)]


LIMIT = Technique("limit: encoded COPY", limit())
