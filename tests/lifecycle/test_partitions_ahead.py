"""Partitions made ahead: which, for whom, and beside others who make them too."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.errors import StorageError
from observatory_storage.layout import PARTITIONED, Partitions
from observatory_storage.lifecycle.partitions_ahead import make_partitions_ahead
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.models import LogRecord
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.lifecycle.pools import pool_with, ranges, scalar
from tests.writers.helpers import a_log, a_span, count, event, fetch, fork, wait_for

NOW = datetime(2026, 1, 29, 15, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def test_each_signal_has_partitions_of_its_width(database_url: str) -> None:
    with pool_with(database_url, traces="hour", metrics="week", logs="month", ahead="2d") as pool:
        made = make_partitions_ahead(Run(pool, NOW))
        assert made.is_complete
        spans = ranges(pool, "trace_spans")
        assert spans == ranges(pool, "trace_events")
        assert len(spans) == 49
        assert next(iter(spans)) == "p2026012915"
        assert list(spans)[-1] == "p2026013115"
        assert list(ranges(pool, "metric_data_points")) == ["p2026w05"]
        assert list(ranges(pool, "logs")) == list(ranges(pool, "log_frames")) == ["p202601"]
        assert len(made.made) == 150
        assert make_partitions_ahead(Run(pool, NOW)).made == ()
        later = make_partitions_ahead(Run(pool, NOW + HOUR))
        assert later.made == tuple(
            f"{table}_p2026013116" for table in ("trace_spans", "trace_events", "payload_frames")
        )


def test_a_change_of_width_applies_to_new_ranges(database_url: str) -> None:
    with pool_with(database_url, logs="hour", ahead="12h") as pool:
        make_partitions_ahead(Run(pool, NOW))
    with pool_with(database_url, logs="week", ahead="4d") as pool:
        make_partitions_ahead(Run(pool, NOW))
        found = ranges(pool, "logs")
    # The rest of a day that has hours is filled with hours, the rest of the week with days.
    hours = [f"p20260129{hour}" for hour in range(15, 24)]
    hours += [f"p20260130{hour:02}" for hour in range(24)]
    assert list(found) == [*hours, "p20260131", "p20260201", "p2026w06"]
    assert all(one.upper == other.lower for one, other in pairwise(found.values()))


@pytest.mark.parametrize("zone", ["America/St_Johns", "Asia/Kathmandu"])
def test_bounds_are_utc_in_any_zone(database_url: str, zone: str) -> None:
    with pool_with(database_url) as pool, pool.engine.begin() as connection:
        name = connection.engine.url.database
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET timezone = '{zone}'")
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET datestyle = 'German'")
    with pool_with(database_url, logs="hour", traces="week", ahead="2h") as pool:
        for _ in range(2):
            make_partitions_ahead(Run(pool, NOW))
        assert list(ranges(pool, "logs")) == [f"p20260129{hour}" for hour in (15, 16, 17)]
        assert ranges(pool, "trace_spans")["p2026w05"].lower == datetime(2026, 1, 26, tzinfo=UTC)
        CopyWriter(pool).write_logs([a_log(timestamp=NOW)])
        partition = scalar(pool, "SELECT tableoid::regclass::text FROM logs")
        # The name of a shard ends in its number.
        assert re.sub(r"_\d+$", "", partition) == "logs_p2026012915"


def test_a_role_that_owns_nothing_writes_into_what_the_owner_makes(
    embedded_server: EmbeddedPostgres,
) -> None:
    now = datetime.now(UTC)
    with pool_with(embedded_server.url) as owner:
        owner.run_migrations()
        with owner.engine.begin() as connection:
            for statement in (
                "CREATE ROLE app LOGIN",
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
                "GRANT USAGE ON SCHEMA public TO app",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app",
            ):
                connection.exec_driver_sql(statement)
        make_partitions_ahead(Run(owner))
        with pool_with(embedded_server.url, username="app") as app:
            writer = CopyWriter(app)
            assert writer.write_spans(
                [a_span(1, 1, start_time=now, end_time=now, events=[event("e")])]
            )
            writer.write_logs([a_log(timestamp=now + 7 * DAY)])
            with pytest.raises(
                StorageError, match=r"only the owner.*`observatory-storage maintain`"
            ):
                writer.write_logs([a_log(timestamp=now + 9 * DAY)])
            with pytest.raises(StorageError, match=r"permission denied|must be owner"):
                make_partitions_ahead(Run(app, now + 7 * DAY))
            make_partitions_ahead(Run(owner, now + 7 * DAY))
            writer.write_logs([a_log(timestamp=now + 9 * DAY)])
        assert count(owner, "logs") == 2


def test_a_run_whose_time_is_over_leaves_the_rest(pool: StoragePool) -> None:
    result = make_partitions_ahead(Run(pool, NOW, Deadline(0)))
    assert (result.made, result.is_complete) == ((), False)


def test_each_new_partition_is_reported(pool: StoragePool) -> None:
    lines: list[str] = []
    made = make_partitions_ahead(Run(pool, NOW, progress=lines.append)).made
    assert lines == [f"made {name}" for name in made]
    assert len(made) == 8 * len(PARTITIONED)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_who_make_the_same_partitions_do_not_fail(
    pool: StoragePool, database_url: str
) -> None:
    """Writers make them on demand, with other widths, while runs make them ahead."""
    widths = ("hour", "day", "week")

    def maintain(width: str) -> None:
        with pool_with(database_url, logs=width, traces=width, ahead="1d") as own:
            make_partitions_ahead(Run(own, NOW))

    def write(width: str) -> None:
        with pool_with(database_url, logs=width, traces=width) as own:
            for day in range(5):
                CopyWriter(own).write_logs([a_log(timestamp=NOW + day * DAY)])

    children = [fork(partial(work, width)) for work in (maintain, write) for width in widths]
    with ThreadPoolExecutor(4) as executor:
        own = [Partitions(pool.engine, pool.schema) for _ in range(4)]
        made = [executor.submit(one.cover, "logs", NOW, NOW + DAY, NOW) for one in own]
    for future in made:
        future.result()
    for child in children:
        wait_for(child)
    assert count(pool, "logs") == 5 * len(widths)
    held = list(ranges(pool, "logs").values())
    assert not any(one.overlaps(other) for one, other in pairwise(held))


def test_open_transactions_neither_wait_nor_are_waited_for(
    pool: StoragePool, database_url: str
) -> None:
    CopyWriter(pool).write_logs([a_log(timestamp=NOW)])
    with pool.unit_of_work() as writing, pool.unit_of_work() as reading:
        CopyWriter(writing).write_logs([a_log(1, timestamp=NOW)])
        assert len(reading.logs.list()) == 1
        with pool_with(database_url, ahead="30d") as other:
            # It would give up after eight waits of two seconds for a lock.
            assert len(make_partitions_ahead(Run(other, NOW)).made) > 4
        CopyWriter(writing).write_logs([a_log(2, timestamp=NOW + DAY)])
        assert len(reading.logs.list()) == 1
        writing.commit()
    assert len(fetch(pool, LogRecord)) == 3


def test_partitions_belong_to_the_owner_of_their_table(embedded_server: EmbeddedPostgres) -> None:
    with pool_with(embedded_server.url) as superuser:
        with superuser.engine.begin() as connection:
            for statement in (
                'CREATE ROLE "the owner" LOGIN',
                'CREATE ROLE member LOGIN IN ROLE "the owner"',
                'GRANT CREATE ON SCHEMA public TO "the owner"',
            ):
                connection.exec_driver_sql(statement)
        with pool_with(embedded_server.url, username="the owner") as owner:
            owner.run_migrations()
        with pool_with(embedded_server.url, username="member") as member:
            CopyWriter(member).write_logs([a_log(timestamp=NOW)])
        make_partitions_ahead(Run(superuser, NOW))
        owners = (
            "SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class"
            " WHERE relispartition AND relkind = 'r'"
        )
        assert scalar(superuser, owners) == ['"the owner"']
