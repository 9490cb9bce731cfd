"""Databases with a dataset. They are kept if the server is."""

from __future__ import annotations

import contextlib
import inspect
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from observatory_embedded.databases import create_database, drop_database, with_database
from observatory_storage import PostgresConfig, StorageConfig, StoragePool, migrate
from observatory_storage.models import Base
from tests.benchmarks.reading import dataset, prose, spans
from tests.benchmarks.reading.closing import close_partitions, index_open_day
from tests.benchmarks.reading.dataset import DAY, Dataset, Sizes
from tests.benchmarks.reading.load import load

__all__ = ["Kept", "Table", "stored", "warm"]

_MARK: Final = "dataset of the benchmark of reading"


@dataclass(frozen=True)
class Table:
    """A table with its partitions."""

    name: str
    rows: int
    table_mb: float
    indexes_mb: float


@dataclass(frozen=True)
class Kept:
    """A database with its dataset.

    Attributes:
        seconds: the seconds of each step of its creation, which was in another run if `reused`.
    """

    pool: StoragePool
    data: Dataset
    seconds: dict[str, float]
    reused: bool

    def tables(self) -> list[Table]:
        """The sizes of the tables."""
        with self.pool.engine.connect() as connection:
            rows = connection.exec_driver_sql(_TABLES).all()
        return [Table(*row) for row in rows]


_TABLES: Final = """
    SELECT p.relname, sum(greatest(c.reltuples, 0))::bigint,
           sum(pg_table_size(c.oid))::float8 / 1024 ^ 2,
           sum(pg_indexes_size(c.oid))::float8 / 1024 ^ 2
    FROM pg_class p
    JOIN pg_namespace n ON n.oid = p.relnamespace AND n.nspname = 'public'
    LEFT JOIN LATERAL pg_partition_tree(p.oid) t ON t.isleaf
    JOIN pg_class c ON c.oid = coalesce(t.relid, p.oid)
    WHERE p.relname IN ('traces', 'trace_spans', 'trace_events', 'metric_data_points', 'logs')
      AND p.relkind IN ('r', 'p')
    GROUP BY p.relname ORDER BY 3 DESC
"""

_PREWARM: Final = """
    SELECT pg_prewarm(c.oid, 'read') FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')
"""


@contextmanager
def stored(
    server: str,
    name: str,
    sizes: Sizes,
    *,
    jobs: int,
    again: bool,
    tell: Callable[[str], None],
) -> Iterator[Kept]:
    """The dataset of these sizes, as it is on the server, or loaded now.

    An existing database of this name is reused if it is complete and differs from what would be
    loaded only by its dates. Another dataset is replaced. Any other database is an error.
    """
    url = with_database(server, name)
    found = _found(server, name)
    wanted = _fingerprint(sizes)
    reused = found.get("fingerprint") == wanted and found["complete"] and not again
    if reused:
        data = Dataset(sizes, datetime.fromisoformat(found["first_day"]))
        seconds = found["seconds"]
        tell(f"{name}: {sizes.spans:,} spans are there, from {data.first_day:%Y-%m-%d} on")
    else:
        if found:
            tell(f"{name}: replacing what is there")
            drop_database(server, name)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        data = Dataset(sizes, today - sizes.days * DAY)
        tell(f"{name}: loading {sizes.spans:,} spans")
        create_database(server, name)
        note = {"mark": _MARK, "fingerprint": wanted, "first_day": data.first_day.isoformat()}
        _note(server, name, {**note, "complete": False})
        seconds = _made(url, data, jobs, tell)
        _note(server, name, {**note, "complete": True, "seconds": seconds})
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool:
        started = time.monotonic()
        index_open_day(pool, data.open_day)
        tell(f"{name}: slices of the open day are indexed: {time.monotonic() - started:.0f} s")
        yield Kept(pool, data, seconds, reused)


def warm(kept: Kept) -> float:
    """Read all data into memory, as far as it fits, and make a checkpoint. Returns the seconds.

    Without the checkpoint, the server would write during the measurement. Each step is skipped if
    the role lacks the privilege.
    """
    started = time.monotonic()
    with contextlib.suppress(DBAPIError), _autocommitting(kept.pool) as connection:
        connection.exec_driver_sql("CHECKPOINT")
    with contextlib.suppress(DBAPIError), _autocommitting(kept.pool) as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        connection.exec_driver_sql(_PREWARM).all()
    return time.monotonic() - started


def _made(url: str, data: Dataset, jobs: int, tell: Callable[[str], None]) -> dict[str, float]:
    seconds: dict[str, float] = {}

    def done(step: str, started: float) -> None:
        seconds[step] = time.monotonic() - started
        tell(f"{step}: {seconds[step]:.0f} s")

    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool:
        pool.run_migrations()
        started = time.monotonic()
        loaded = load(url, data, jobs, tell)
        done("written", started)
        expected = asdict(data.sizes)
        for one in loaded:
            wanted = expected[_SIZE_OF[one.table]]
            if one.rows != wanted:
                raise AssertionError(f"{one.rows} of {wanted} rows of {one.table} were written")
        started = time.monotonic()
        close_partitions(pool, data.open_day)
        done("indexes of closed partitions", started)
        started = time.monotonic()
        # Autovacuum would update statistics and the visibility map later.
        with _autocommitting(pool) as connection:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(Base.metadata.tables)}")
        done("vacuumed and analysed", started)
    return seconds


_SIZE_OF: Final = {"trace_spans": "spans", "logs": "logs", "metric_data_points": "points"}


def _autocommitting(pool: StoragePool) -> Connection:
    return pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _fingerprint(sizes: Sizes) -> str:
    """A digest of the sizes, the tables and the code that generates the rows."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    statements = []
    for table in Base.metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
        statements += sorted(indexes)
    sources = [inspect.getsource(module) for module in (dataset, prose, spans)]
    content = json.dumps([asdict(sizes), migrate.head(), statements, sources])
    return blake2b(content.encode(), digest_size=16).hexdigest()


def _found(server: str, name: str) -> dict[str, Any]:
    """The description of the database, or an empty one if it does not exist.

    Raises:
        RuntimeError: the database exists and was not created by this benchmark.
    """
    with _connection(server) as connection:
        row = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
            [name],
        ).fetchone()
    if row is None:
        return {}
    try:
        note: dict[str, Any] = json.loads(row[0] or "")
    except ValueError:
        note = {}
    if note.get("mark") != _MARK:
        raise RuntimeError(f"{name} is a database of somebody else's: give another --name")
    return note


def _note(server: str, name: str, note: dict[str, Any]) -> None:
    query = sql.SQL("COMMENT ON DATABASE {} IS {}")
    with _connection(server) as connection:
        connection.execute(query.format(sql.Identifier(name), sql.Literal(json.dumps(note))))


def _connection(server: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect("postgresql://" + server.partition("://")[2], autocommit=True)
