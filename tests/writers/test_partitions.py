"""Partitions: made as rows need them, once, by whoever comes first, and in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import layout, partition_catalog
from observatory_storage.errors import Conflict
from observatory_storage.layout import PARTITIONED, Partitions, candidates, is_partition
from observatory_storage.models import LogRecord
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, LogWriter, TraceWriter
from tests import citus
from tests.writers.helpers import (
    ONCE,
    START,
    a_log,
    a_span,
    contents,
    count,
    fetch,
    fork,
    quick_pool,
    wait_for,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@contextmanager
def at(now: datetime) -> Iterator[None]:
    """The layout's clock stands at this moment."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromisoformat(now.isoformat())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "datetime", Clock)
        yield


def names(pool: StoragePool, table: str) -> list[str]:
    with pool.engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid"
            " JOIN pg_class p ON p.oid = inhparent"
            " JOIN pg_namespace n ON n.oid = p.relnamespace"
            " WHERE p.relname = %s AND n.nspname = %s",
            (table, pool.schema),
        )
        return sorted(name.removeprefix(f"{table}_") for name in rows.scalars())


@pytest.mark.parametrize(
    ("moment", "suffixes"),
    [
        (NOW, ["p20261123"]),
        (NOW - timedelta(days=90), ["p20260825"]),
        (NOW + timedelta(days=35), ["p20261228"]),
        (NOW - timedelta(days=91), ["p202608", "p20260824"]),
        (NOW + timedelta(days=36), ["p202612", "p20261229"]),
        (NOW - timedelta(days=1830), ["p202111", "p20211119"]),
        (NOW - timedelta(days=1831), ["p2021", "p202111", "p20211118"]),
        (NOW + timedelta(days=733), ["p2028", "p202811", "p20281125"]),
        (datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), ["past"]),
        (datetime(2000, 1, 1, tzinfo=UTC), ["p2000", "p200001", "p20000101"]),
        (datetime(2099, 12, 31, tzinfo=UTC), ["p2099", "p209912", "p20991231"]),
        (datetime(2100, 1, 1, tzinfo=UTC), ["future"]),
        (datetime.min.replace(tzinfo=UTC), ["past"]),
        (datetime.max.replace(tzinfo=UTC), ["future"]),
        (datetime(2026, 11, 24, 0, 30, tzinfo=ZoneInfo("Europe/Berlin")), ["p20261123"]),
    ],
)
def test_a_moment_has_ranges_from_coarse_to_fine(moment: datetime, suffixes: list[str]) -> None:
    found = list(candidates(moment, NOW))
    if suffixes[0] not in ("past", "future"):
        suffixes = [*suffixes, f"p{moment.astimezone(UTC):%Y%m%d%H}"]
    assert [each.suffix for each in found] == suffixes
    assert all(each.holds(moment) for each in found)
    for outer, inner in pairwise(found):
        assert outer.lower <= inner.lower < inner.upper <= outer.upper
    assert all(is_partition(f"logs_{suffix}") for suffix in suffixes)


def test_rows_of_all_times_find_a_partition(pool: StoragePool) -> None:
    times = [
        datetime.min.replace(tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=UTC),
        NOW - 100 * DAY,
        NOW,
        NOW + DAY,
        datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2100, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ]
    with at(NOW):
        assert CopyWriter(pool).write_logs([a_log(timestamp=time) for time in times]) == len(times)
    assert [row["timestamp"] for row in fetch(pool, LogRecord, "timestamp")] == times
    expected = ["future", "p2000", "p202608", "p20261123", "p20261124", "p2099", "past"]
    assert names(pool, "logs") == expected
    # A thousand years apart, they made no thousand partitions, and the same again makes none.
    with at(NOW):
        pool.partitions.forget()
        for table in PARTITIONED:
            pool.partitions.ensure(table, times)
    assert {table: names(pool, table) for table in PARTITIONED} == dict.fromkeys(
        PARTITIONED, expected
    )


def test_days_find_room_beside_a_month_made_earlier(pool: StoragePool) -> None:
    """The month was far off when it was made: its days need none of their own now."""
    partitions = Partitions(pool.engine, pool.schema)
    with at(NOW):
        partitions.ensure("logs", [NOW + 50 * DAY])
    assert names(pool, "logs") == ["p202701"]
    with at(NOW + 40 * DAY):
        Partitions(pool.engine, pool.schema).ensure(
            "logs", [NOW + day * DAY for day in range(35, 75)]
        )
    assert names(pool, "logs") == [
        *(f"p202612{day}" for day in (28, 29, 30, 31)),
        "p202701",
        "p20270201",
        "p20270202",
        "p20270203",
        "p20270204",
        "p20270205",
    ]


def test_a_month_or_year_that_overlaps_a_partition_is_not_created(pool: StoragePool) -> None:
    with at(NOW):
        pool.partitions.ensure("logs", [NOW, NOW + DAY])
    later = NOW + timedelta(days=400)
    with at(later):
        Partitions(pool.engine, pool.schema).ensure("logs", [NOW + 2 * DAY, NOW + 30 * DAY])
    assert names(pool, "logs") == ["p20261123", "p20261124", "p20261125", "p202612"]
    with at(NOW + timedelta(days=4000)):
        Partitions(pool.engine, pool.schema).ensure(
            "logs", [NOW - 300 * DAY, NOW + 3 * DAY, NOW + 400 * DAY]
        )
    assert names(pool, "logs") == [
        "p202601",
        "p20261123",
        "p20261124",
        "p20261125",
        "p20261126",
        "p202612",
        "p2027",
    ]


def test_partitions_on_another_grid_are_left_alone(pool: StoragePool) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE half PARTITION OF logs"
            " FOR VALUES FROM ('2026-11-23 06:00+00') TO ('2026-11-23 18:00+00')"
        )
    for hours in (0, 8, 9, -12):
        CopyWriter(pool).write_logs([a_log(timestamp=NOW + timedelta(hours=hours))])
    assert names(pool, "logs") == ["half", "p2026112300", "p2026112320", "p2026112321"]


def test_six_threads_make_each_partition_once(pool: StoragePool) -> None:
    moments = [START + day * DAY for day in range(4)]
    with ThreadPoolExecutor(6) as executor:
        futures = [
            executor.submit(Partitions(pool.engine, pool.schema).ensure, table, moments)
            for table in PARTITIONED
            for _ in range(6)
        ]
        shared = [executor.submit(pool.partitions.ensure, "logs", moments) for _ in range(6)]
        for future in (*futures, *shared):
            future.result()
    assert len({tuple(names(pool, table)) for table in PARTITIONED}) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_that_start_together_all_write(pool: StoragePool, database_url: str) -> None:
    moments = [NOW + day * 40 * DAY for day in range(6)]

    def write() -> None:
        with quick_pool(database_url) as own:
            CopyWriter(own).write_logs([a_log(timestamp=moment) for moment in moments])

    for child in [fork(write) for _ in range(6)]:
        wait_for(child)
    assert count(pool, "logs") == 6 * 6
    assert len(names(pool, "logs")) == len(moments)


def test_open_writers_and_readers_are_not_waited_for(pool: StoragePool, database_url: str) -> None:
    """Nor do they wait: another day's partition comes while both are at work."""
    CopyWriter(pool).write_logs([a_log(timestamp=NOW)])
    with pool.unit_of_work() as writing, pool.unit_of_work() as reading:
        CopyWriter(writing).write_logs([a_log(timestamp=NOW)])
        assert len(reading.logs.list()) == 1
        with quick_pool(database_url, statement_timeout_ms=5000) as other:
            assert CopyWriter(other).write_logs([a_log(timestamp=NOW + DAY)]) == 1
        CopyWriter(writing).write_logs([a_log(timestamp=NOW + 2 * DAY)])
        assert len(reading.logs.list()) == 2
        writing.commit()
    assert count(pool, "logs") == 4


def test_waiting_for_a_table_lock_is_bounded(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_catalog, "_LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(layout, "_ATTEMPTS", 2)
    with psycopg.connect(database_url) as connection:
        connection.execute("LOCK TABLE logs IN SHARE MODE")
        with pytest.raises(Conflict):
            pool.partitions.ensure("logs", [NOW])
    pool.partitions.ensure("logs", [NOW])


def test_a_dropped_partition_is_made_again_by_the_flush(pool: StoragePool) -> None:
    with LogWriter(pool) as logs, TraceWriter(pool) as traces:
        for n in range(3):
            logs.write_log(a_log(n, body=f"{n}"))
            traces.write_span(a_span(1, n + 1, events=[{"name": "e", "timestamp": START}]))
            assert logs.flush().committed == traces.flush().committed == 1
            with pool.engine.begin() as connection:
                for table in ("logs", "trace_spans", "trace_events"):
                    connection.exec_driver_sql(f"DROP TABLE {table}_p202603")
        assert logs.write_stats().retries == 2
    assert {count(pool, table) for table in ("logs", "trace_spans")} == {0}


@pytest.mark.parametrize("zone", ["America/St_Johns", "Asia/Kathmandu"])
def test_the_servers_time_zone_and_date_style_do_not_matter(
    pool: StoragePool, database_url: str, zone: str
) -> None:
    with pool.engine.begin() as connection:
        name = connection.engine.url.database
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET timezone = '{zone}'")
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET datestyle = 'SQL, DMY'")
    midnight = NOW.replace(hour=0)
    times = [midnight - timedelta(microseconds=1), midnight, NOW, midnight + DAY]
    for _ in range(2):
        with at(NOW), quick_pool(database_url) as other:
            CopyWriter(other).write_logs([a_log(timestamp=time) for time in times])
            CopyWriter(other).write_spans(
                [a_span(1, n, start_time=time, end_time=None) for n, time in enumerate(times, 1)]
            )
            assert names(other, "logs") == ["p20261122", "p20261123", "p20261124"]
            assert names(other, "trace_spans") == ["p20261122", "p20261123", "p20261124"]
            found = [row["timestamp"] for row in fetch(other, LogRecord, "timestamp")]
            assert sorted(set(found)) == times
    with pool.engine.connect() as connection:
        bounds = connection.execute(
            sa.text(
                "SELECT count(*) FROM logs_p20261123"
                " WHERE timestamp >= '2026-11-23T00:00Z' AND timestamp < '2026-11-24T00:00Z'"
            )
        )
        assert bounds.scalar() == 4


@pytest.mark.parametrize("schema", ['Odd "schema" 50%', "выше", "CamelCase"])
def test_schemas_of_any_name_work(empty_database_url: str, schema: str) -> None:
    with quick_pool(empty_database_url, schema=schema) as pool:
        pool.run_migrations()
        spans = [
            a_span(n % 2 + 1, n, events=[{"name": "e", "timestamp": START}]) for n in range(1, 9)
        ]
        for method in ("insert", "copy"):
            writer = CopyWriter(pool, method="insert" if method == "insert" else "copy")
            writer.write_spans(spans)
            writer.write_spans([{**span, "name": method, "status": "error"} for span in spans])
            writer.write_logs([a_log(0)])
        found = {table: len(rows) for table, rows in contents(pool).items() if rows}
        assert found == {
            "traces": 2,
            "trace_spans": 8,
            "trace_events": 8,
            "logs": 2,
        }
        assert names(pool, "trace_spans") == ["p202603"]
        with pool.engine.connect() as connection:
            outside = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_class.oid"
                " AND d.deptype = 'e')"  # of an extension
            )
            assert outside.scalar() == 0


def test_rows_are_copied_into_a_schema_with_a_percent_sign(empty_database_url: str) -> None:
    with quick_pool(empty_database_url, schema="50%%") as pool:
        pool.run_migrations()
        large = a_span(1, 1, attributes={"prompt": "word " * 1_000})
        writer = CopyWriter(pool, method="copy", payloads="compressed")
        for number in (1, 2):
            writer.write_spans([{**large, "name": f"version {number}"}])
        with pool.unit_of_work() as uow:
            (span,) = uow.traces.list_spans(payload=True)
        assert (span.name, span.attributes) == ("version 2", large["attributes"])


@citus.not_there("nothing is detached concurrently")
def test_a_partition_that_is_being_detached_is_waited_for_and_made_again(
    pool: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_ATTEMPTS", 2)
    CopyWriter(pool).write_logs([a_log(timestamp=NOW)])
    (name,) = names(pool, "logs")
    with psycopg.connect(database_url) as reading:
        reading.execute("SELECT count(*) FROM logs")
        with psycopg.connect(database_url, autocommit=True) as detaching:
            detaching.execute("SET statement_timeout = '100ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                detaching.execute(f"ALTER TABLE logs DETACH PARTITION logs_{name} CONCURRENTLY")
    with (
        quick_pool(database_url, ONCE) as other,
        pytest.raises(Conflict, match="a partition of logs is being detached") as refused,
    ):
        CopyWriter(other).write_logs([a_log(timestamp=NOW)])
    assert refused.value.retryable
    with psycopg.connect(database_url, autocommit=True) as detaching:
        detaching.execute(f"ALTER TABLE logs DETACH PARTITION logs_{name} FINALIZE")
    CopyWriter(pool).write_logs([a_log(timestamp=NOW)])
    assert names(pool, "logs") == [f"{name}_2"]
    assert is_partition(f"logs_{name}_2")
