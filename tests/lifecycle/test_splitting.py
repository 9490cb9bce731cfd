"""Splitting partitions: no row is lost, doubled or changed, whatever happens meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from observatory_embedded import EmbeddedPostgres
from observatory_storage import LogFilters, migrate
from observatory_storage.errors import Conflict, PoolError, StorageError, Timeout
from observatory_storage.lifecycle import short_locks, split_copy, splitting
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.lifecycle.split_plan import MOST_RANGES
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.models import LogRecord
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.lifecycle.pools import pool_with, ranges, scalar
from tests.writers.helpers import (
    a_log,
    a_span,
    contents,
    count,
    event,
    eventually,
    fetch,
    fork,
    wait_for,
)

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIN = datetime.min.replace(tzinfo=UTC)
MAX = datetime.max.replace(tzinfo=UTC)
DAYS = [f"p202601{day:02}" for day in range(1, 32)]


@pytest.fixture
def filled(database_url: str) -> Iterator[StoragePool]:
    """A pool with a month of logs that was made long before, and has filled up since."""
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, "logs")
        CopyWriter(pool).write_logs(logs(0, 200))
        yield pool


def make_month(pool: StoragePool, *tables: str) -> None:
    for table in tables:
        pool.partitions.cover(table, FIRST, FIRST, now=FIRST - 300 * DAY)


def logs(first: int, rows: int) -> list[dict[str, Any]]:
    """Log records of all hours of the month's first twenty days."""
    return [
        a_log(
            id=f"00000000-0000-0000-0000-{n:012x}",
            timestamp=FIRST + (n * 7 % 480) * HOUR,
            body=f"b{n}",
        )
        for n in range(first, first + rows)
    ]


def tables(pool: StoragePool) -> set[str]:
    """All tables that have something to do with partitions."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND relname ~ '_(p\\d|past|future)'"
    )
    with pool.engine.connect() as connection:
        return set(connection.scalars(sa.text(query)))


def rows_in_place(pool: StoragePool, table: str, column: str) -> bool:
    """Whether each row is in the partition whose range holds it."""
    held = ranges(pool, table)
    with pool.engine.connect() as connection:
        found = connection.execute(
            sa.text(
                f"SELECT tableoid::regclass::text, min({column}), max({column})"
                f" FROM {table} GROUP BY 1"
            )
        )
        return all(
            held[name.removeprefix(f"{table}_")].holds(moment)
            for name, *moments in found
            for moment in moments
        )


class Ending(Deadline):
    """A deadline that is over when it has been asked so often."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self._left = questions

    @property
    def is_over(self) -> bool:
        self._left -= 1
        return self._left < 0


def test_a_month_that_has_filled_up_becomes_days(filled: StoragePool) -> None:
    before = contents(filled)
    lines: list[str] = []
    result = split_partitions(Run(filled, NOW, progress=lines.append))
    (done,) = result.split
    assert (done.partition, done.rows, result.is_complete) == ("logs_p202601", 200, True)
    assert list(ranges(filled, "logs")) == DAYS
    assert tables(filled) == {f"logs_{day}" for day in DAYS} == set(done.into)
    assert contents(filled) == {**before, "partition_splits": []}
    assert rows_in_place(filled, "logs", "timestamp")
    assert lines == ["split logs_p202601 into 31 partitions"]
    assert split_partitions(Run(filled, NOW)).split == ()
    # The new partitions are like any other: no check is left, and their indexes are attached.
    checks = "SELECT count(*) FROM pg_constraint WHERE conname = 'split_range'"
    assert scalar(filled, checks) == 0
    attached = (
        "SELECT count(*) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " WHERE x.indrelid = 'logs_p20260105'::regclass AND NOT i.relispartition"
    )
    assert scalar(filled, attached) == 0


@pytest.mark.parametrize(
    ("settings", "now", "is_split"),
    [
        ({"split_rows": 199}, NOW, True),
        ({"split_rows": 200}, NOW, False),
        ({"split_rows": 1, "logs": "month"}, NOW, False),
        ({"split_rows": 1, "logs": "week"}, NOW, True),
        ({"split_rows": 1}, NOW - 300 * DAY, False),
        ({"split_rows": 1}, NOW + 300 * DAY, False),
    ],
)
def test_only_what_is_near_and_full_and_wide_is_split(
    filled: StoragePool,
    database_url: str,
    settings: dict[str, Any],
    now: datetime,
    *,
    is_split: bool,
) -> None:
    with pool_with(database_url, **settings) as pool:
        assert bool(split_partitions(Run(pool, now)).split) == is_split


def test_a_partition_that_is_closed_stays_as_it_is(filled: StoragePool) -> None:
    later = FIRST + 32 * DAY
    assert close_partitions(Run(filled, later)).closed == ("logs_p202601",)
    assert split_partitions(Run(filled, later)).split == ()


def test_hours_are_few_and_the_rest_is_coarse(filled: StoragePool, database_url: str) -> None:
    with pool_with(database_url, split_rows=50, logs="hour") as pool:
        before = contents(pool)["logs"]
        assert len(split_partitions(Run(pool, NOW)).split) == 1
        found = ranges(pool, "logs")
        assert len(found) <= MOST_RANGES + 4
        assert contents(pool)["logs"] == before
        assert rows_in_place(pool, "logs", "timestamp")


def test_absurd_times_make_few_partitions(database_url: str) -> None:
    times = [MIN, *(datetime(year, 5, 1, tzinfo=UTC) for year in range(2, 2000, 11))]
    times += [datetime(1970, 1, 1, tzinfo=UTC)] * 300
    times += [MAX, datetime(2554, 7, 21, 23, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)] * 40
    with pool_with(database_url, split_rows=100) as pool:
        CopyWriter(pool).write_logs([a_log(timestamp=time) for time in times])
        assert list(ranges(pool, "logs")) == ["past", "future"]
        close_partitions(Run(pool))
        before = contents(pool)["logs"]
        # Once more what is still coarse and full.
        for _ in range(3):
            assert split_partitions(Run(pool)).is_complete
        found = ranges(pool, "logs")
        assert "p1970" in found
        assert "p2554" in found
        assert {"p2100", "future9999"} <= set(found)
        assert len(found) <= 2 * MOST_RANGES
        assert contents(pool)["logs"] == before
        assert rows_in_place(pool, "logs", "timestamp")
        # All of the far past and future still has a partition, so that this makes none.
        others = [
            datetime(year, 2, 3, tzinfo=UTC)
            for year in (*range(1, 2000, 7), *range(2100, 9999, 40))
        ]
        CopyWriter(pool).write_logs([a_log(timestamp=time) for time in others])
        assert ranges(pool, "logs") == found


def test_spans_and_their_events_get_the_same_ranges(database_url: str) -> None:
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, "trace_spans", "trace_events")
        spans = [
            a_span(
                n,
                n,
                start_time=FIRST + n * 6 * HOUR,
                end_time=None,
                events=[event("e")] * (n % 4 == 0),
            )
            for n in range(1, 80)
        ]
        CopyWriter(pool).write_spans(spans)
        before = contents(pool)
        assert len(split_partitions(Run(pool, NOW)).split) == 2
        assert list(ranges(pool, "trace_spans")) == list(ranges(pool, "trace_events")) == DAYS
        assert contents(pool) == before
        for table, column in (("trace_spans", "start_time"), ("trace_events", "span_start_time")):
            assert rows_in_place(pool, table, column)


def test_events_follow_spans_that_were_split_before_the_run_ended(database_url: str) -> None:
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, "trace_spans", "trace_events")
        CopyWriter(pool).write_spans(
            [a_span(n, n, start_time=FIRST + n * 6 * HOUR, end_time=None) for n in range(1, 80)]
        )
        first = split_partitions(Run(pool, NOW, Ending(3)))
        assert (len(first.split), first.is_complete) == (1, False)
        second = split_partitions(Run(pool, NOW))
        assert [done.partition for done in second.split] == ["trace_events_p202601"]
        assert list(ranges(pool, "trace_spans")) == list(ranges(pool, "trace_events")) == DAYS


def test_what_writers_do_between_two_runs_is_not_lost(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_copy, "_FIRST_BLOCKS", 1)
    monkeypatch.setattr(split_copy, "_MOST_BLOCKS", 1)
    monkeypatch.setattr(split_copy, "_BLOCKS_OF_CHANGES", 2)
    for round_, questions in enumerate((2, 2, 1), 1):
        assert not split_partitions(Run(filled, NOW, Ending(questions))).is_complete
        assert count(filled, "partition_splits") == 1
        with filled.engine.begin() as connection:
            for statement in (
                "UPDATE logs SET body = 'changed' || body WHERE id::text ~ '[05]$'",
                "UPDATE logs SET timestamp = timestamp + interval '3 days' WHERE id::text ~ '7$'"
                " AND timestamp < '2026-01-25'",
                "DELETE FROM logs WHERE id::text ~ '3$'",
            ):
                connection.exec_driver_sql(statement)
        CopyWriter(filled).write_logs(logs(1000 * round_, 30))
    before = contents(filled)["logs"]
    assert split_partitions(Run(filled, NOW)).is_complete
    assert list(ranges(filled, "logs")) == DAYS
    assert contents(filled)["logs"] == before
    assert rows_in_place(filled, "logs", "timestamp")


def test_rows_that_only_went_are_found_out(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM logs WHERE id::text ~ '3$'")
    before = contents(filled)["logs"]
    assert split_partitions(Run(filled, NOW)).is_complete
    assert contents(filled)["logs"] == before


def test_a_partition_that_is_rewritten_meanwhile_is_copied_anew(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.exec_driver_sql("VACUUM FULL logs_p202601")
    before = contents(filled)["logs"]
    assert split_partitions(Run(filled, NOW)).is_complete
    assert contents(filled)["logs"] == before
    assert tables(filled) == {f"logs_{day}" for day in DAYS}


def test_a_migration_meanwhile_begins_the_split_anew(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs ADD COLUMN shade text DEFAULT 'grey'")
        connection.exec_driver_sql("UPDATE logs SET shade = body WHERE id::text ~ '4$'")
        connection.exec_driver_sql("CREATE INDEX ON ONLY logs (shade)")
    shades = "SELECT string_agg(shade || body, ',' ORDER BY id) FROM logs"
    before = scalar(filled, shades)
    assert split_partitions(Run(filled, NOW)).is_complete
    assert scalar(filled, shades) == before
    assert tables(filled) == {f"logs_{day}" for day in DAYS}


def test_a_partition_that_was_dropped_meanwhile_leaves_nothing(filled: StoragePool) -> None:
    assert not split_partitions(Run(filled, NOW, Ending(2))).is_complete
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE logs_p202601")
    filled.partitions.forget()
    CopyWriter(filled).write_logs([a_log(timestamp=FIRST)])
    held = ranges(filled, "logs")
    assert split_partitions(Run(filled, NOW)).split == ()
    assert ranges(filled, "logs") == held
    assert len(tables(filled)) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_that_is_killed_anywhere_is_completed_by_the_next(
    filled: StoragePool, database_url: str
) -> None:
    before = contents(filled)["logs"]

    def run_until(told: str) -> None:
        def die(*given: Any) -> None:
            if told in given[2]:
                os._exit(0)

        with pool_with(database_url, split_rows=50) as own:
            sa.event.listen(own.engine, "before_cursor_execute", die)
            split_partitions(Run(own, NOW))
        os._exit(1)  # it was to die

    for told in (
        "ADD CONSTRAINT",
        "INSERT INTO public.partition_splits",
        "NOT age(",
        "UPDATE public.partition_splits",
        "RETURNING xmax",
        "ANALYZE",
        "array_agg(m.ctid)",
        "LOCK TABLE ONLY public.logs IN",
        "DETACH PARTITION",
        "DROP CONSTRAINT",
        "DROP TABLE",
    ):
        if told == "RETURNING xmax":
            CopyWriter(filled).write_logs(logs(500, 20))
            before = contents(filled)["logs"]
        wait_for(fork(partial(run_until, told)))
        assert contents(filled)["logs"] == before
    assert list(ranges(filled, "logs")) == DAYS
    assert "logs_p202601" in tables(filled)
    assert split_partitions(Run(filled, NOW)).is_complete
    assert tables(filled) == {f"logs_{day}" for day in DAYS}
    assert count(filled, "partition_splits") == 0


def test_writers_and_readers_notice_nothing(database_url: str) -> None:
    with pool_with(database_url, split_rows=30) as pool:
        make_month(pool, "logs", "trace_spans", "trace_events")
        CopyWriter(pool).write_logs(logs(0, 300))
        CopyWriter(pool).write_spans(spans_of(0, "first"))
        over = threading.Event()
        failures: list[BaseException] = []
        written = [300]

        def write() -> None:
            with pool_with(database_url) as own:
                writer = CopyWriter(own)
                round_ = 0
                while not over.is_set():
                    writer.write_logs(logs(written[0], 20))
                    written[0] += 20
                    writer.write_spans(spans_of(round_ % 7, f"round {round_}"))
                    round_ += 1

        def read() -> None:
            filters = LogFilters(start_time=FIRST, end_time=FIRST + 31 * DAY)
            with pool_with(database_url) as own:
                while not over.is_set():
                    least = written[0]
                    with own.unit_of_work() as uow:
                        found = uow.logs.get_stats(filters).log_count
                        spans = len(uow.traces.list_spans(limit=1000))
                    assert found >= least, (found, least)
                    assert spans >= 40

        def watched(work: Any) -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told by the test
                failures.append(error)
                over.set()

        threads = [threading.Thread(target=watched, args=(work,)) for work in (write, read)]
        for thread in threads:
            thread.start()
        try:
            done: set[str] = set()
            eventually(lambda: _split_some(pool, done) or bool(failures))
            # They go on for a while with the new partitions.
            goal = written[0] + 60
            eventually(lambda: written[0] >= goal or bool(failures))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert failures == []
        for table, column in (("logs", "timestamp"), ("trace_spans", "start_time")):
            assert list(ranges(pool, table)) == DAYS
            assert rows_in_place(pool, table, column)
        assert count(pool, "logs") == written[0]
        assert len({row["id"] for row in fetch(pool, LogRecord)}) == written[0]


def _split_some(pool: StoragePool, done: set[str]) -> bool:
    done |= {one.partition for one in split_partitions(Run(pool, NOW)).split}
    return done >= {"logs_p202601", "trace_spans_p202601"}


def spans_of(first: int, name: str) -> list[dict[str, Any]]:
    """Forty spans and some others, each of which replaces itself when it is written again."""
    return [
        a_span(
            n, n, name=name, start_time=FIRST + n * 11 * HOUR, end_time=None, events=[event(name)]
        )
        for n in range(1 + first % 3, 41 + first)
    ]


def test_the_partitions_that_a_writer_remembers_may_be_gone(
    filled: StoragePool, database_url: str
) -> None:
    with pool_with(database_url) as other:
        writer = CopyWriter(other)
        writer.write_logs(logs(500, 1))
        split_partitions(Run(filled, NOW))
        writer.write_logs(logs(600, 50))
        with filled.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE logs_p20260105")
        writer.write_logs([a_log(timestamp=FIRST + 4 * DAY + HOUR)])
    assert list(ranges(filled, "logs"))[3:6] == ["p20260104", "p20260105", "p20260106"]
    assert rows_in_place(filled, "logs", "timestamp")


def test_a_table_that_is_in_use_is_left_for_the_next_run(
    filled: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "_ATTEMPTS", 2)
    monkeypatch.setattr(short_locks, "LOCK_TIMEOUT", "20ms")
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT count(*) FROM logs")
        result = split_partitions(Run(filled, NOW))
        assert [failure.partition for failure in result.failed] == ["logs_p202601"]
        assert isinstance(result.failed[0].error, Conflict)
        assert not result.is_complete
        # Whoever comes now does not wait.
        CopyWriter(filled).write_logs(logs(400, 5))
    assert split_partitions(Run(filled, NOW)).is_complete
    assert count(filled, "logs") == 205


def test_a_transaction_that_keeps_an_older_snapshot_is_waited_for(
    filled: StoragePool, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM traces")
        eventually(lambda: bool(scalar(filled, splitting._HAS_OLD_SNAPSHOTS.text)))
        result = split_partitions(Run(filled, NOW))
        assert "kept a snapshot" in str(result.failed[0].error)
        found = connection.execute("SELECT count(*) FROM logs").fetchone()
        assert found == (200,)
    assert split_partitions(Run(filled, NOW)).is_complete


def test_a_partition_that_takes_too_long_to_look_through_is_not_locked(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "_SCAN_TIMEOUT", "1ms")
    with filled.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO logs (id, timestamp, service_name) SELECT gen_random_uuid(),"
            " '2026-01-05Z', 's' FROM generate_series(1, 50000)"
        )
    (failure,) = split_partitions(Run(filled, NOW)).failed
    assert isinstance(failure.error, Timeout)
    assert "logs_p202601 cannot be looked through within 1ms" in str(failure.error)


def test_one_run_splits_at_a_time(filled: StoragePool) -> None:
    with splitting._alone(filled):
        result = split_partitions(Run(filled, NOW))
        assert (result.split, result.is_complete) == ((), False)
    results: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(len(split_partitions(Run(filled, NOW)).split))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == 1
    assert len(results) == len(threads)
    assert count(filled, "logs") == 200


def test_a_pool_of_one_connection_is_refused(filled: StoragePool) -> None:
    limits = filled.config.pool.model_copy(update={"max_connections": 1})
    config = filled.config.model_copy(update={"pool": limits})
    with StoragePool(config) as one, pytest.raises(PoolError, match="two connections"):
        split_partitions(Run(one, NOW))


@pytest.mark.parametrize("schema", ['Odd: "schema" 50%', "выше"])
def test_schemas_of_any_name_work(empty_database_url: str, schema: str) -> None:
    with pool_in(empty_database_url, schema) as pool:
        pool.run_migrations()
        make_month(pool, "logs")
        CopyWriter(pool).write_logs(logs(0, 60))
        before = contents(pool)["logs"]
        assert not split_partitions(Run(pool, NOW, Ending(2))).is_complete
        CopyWriter(pool).write_logs([a_log(timestamp=FIRST)])
        assert split_partitions(Run(pool, NOW)).is_complete
        assert list(ranges(pool, "logs")) == DAYS
        assert set(before) < set(contents(pool)["logs"])
        assert close_partitions(Run(pool, NOW)).is_complete
        migrate.downgrade(pool.engine, schema)


@contextmanager
def pool_in(url: str, schema: str) -> Iterator[StoragePool]:
    with pool_with(url, split_rows=50) as pool:
        postgres = pool.config.postgres.model_copy(update={"schema_name": schema})
        config = pool.config.model_copy(update={"postgres": postgres})
    with StoragePool(config) as other:
        yield other


def test_a_role_that_does_not_own_the_table_gets_an_error(
    embedded_server: EmbeddedPostgres,
) -> None:
    with pool_with(embedded_server.url) as owner:
        owner.run_migrations()
        make_month(owner, "logs")
        CopyWriter(owner).write_logs(logs(0, 60))
        with owner.engine.begin() as connection:
            connection.exec_driver_sql("CREATE ROLE visitor LOGIN")
            connection.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO visitor")
        with (
            pool_with(embedded_server.url, username="visitor", split_rows=50) as theirs,
            pytest.raises(StorageError, match=r"visitor does not own logs_p202601"),
        ):
            split_partitions(Run(theirs, NOW))
        assert count(owner, "partition_splits") == 0


def test_a_partition_that_is_dropped_during_the_run_does_not_end_it(
    filled: StoragePool, database_url: str
) -> None:
    make_month(filled, "metric_data_points")

    class Dropping(Deadline):
        """Drops the partition when it is asked before the rows are copied."""

        is_dropped = False

        @property
        def is_over(self) -> bool:
            if not self.is_dropped and count(filled, "partition_splits"):
                self.is_dropped = True
                with psycopg.connect(database_url) as connection:
                    connection.execute("DROP TABLE logs_p202601")
            return False

    assert split_partitions(Run(filled, NOW, Dropping())).is_complete
    assert tables(filled) == {"metric_data_points_p202601"}
    assert count(filled, "partition_splits") == 0
