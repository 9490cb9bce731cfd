"""Maintenance moves stored values where the configuration says, if it is asked to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import StoragePool, convert_payloads
from observatory_storage.config import PayloadsConfig, PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.lifecycle import payload_walk
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.payload_moves import MovedPayloads, convert_stored_payloads
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.models import PartitionState, PayloadFrame, TraceSpan
from tests import citus
from tests.lifecycle.pools import scalar
from tests.payloads.framed import START, frame_count, turns, write
from tests.payloads.invariants import check_payloads, framed_rows, whole_rows
from tests.repositories.samples import statements
from tests.writers.helpers import fetch

DAY = timedelta(days=1)
SPANS, EVENTS = (f"{table}_p{START:%Y%m%d}" for table in ("trace_spans", "trace_events"))


def storing(url: str, mode: Any = "compressed", **payloads: Any) -> StoragePool:
    settings = {"convert_stored": True, **payloads}
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url),
            payloads=PayloadsConfig(mode=mode, **settings),
            retry=RetryConfig(max_attempts=1),
        )
    )


def close(pool: StoragePool) -> tuple[str, ...]:
    """Close what is to be closed; what of it had been closed before."""
    # A session reports its changes once a second.
    scalar(pool, "SELECT pg_stat_force_next_flush()")
    return close_partitions(Run(pool)).renewed


def notes(pool: StoragePool) -> dict[str, tuple[Any, Any]]:
    """What is noted about partitions of spans and events."""
    return {
        row["partition_name"]: (row["payload_rule"], row["payload_after"])
        for row in fetch(pool, PartitionState)
        if row["table_name"] in ("trace_spans", "trace_events")
    }


def test_maintenance_moves_values_of_closed_partitions_there_and_back(database_url: str) -> None:
    with storing(database_url, convert_stored=False) as pool:
        write(pool, *turns(range(1, 4), 3), payloads="inline")
        write(pool, *turns([7], 1, datetime.now(UTC)), payloads="inline")
        rows = whole_rows(pool)
        pool.maintain()
        pool.maintain()
        assert framed_rows(pool) == 0
    with storing(database_url) as pool:
        report = pool.maintain()
        (step,) = (step for step in report.steps if step.name == "convert_payloads")
        assert step.result == MovedPayloads((SPANS,), rows=18, changed_rows=18)
        check_payloads(pool)
        # Those of today are left until its partition closes.
        assert framed_rows(pool) == 18
        assert whole_rows(pool) == rows
        assert notes(pool) == dict.fromkeys((SPANS, EVENTS), ("compressed 1200", None))
    with storing(database_url, "inline") as pool:
        assert convert_stored_payloads(Run(pool)).changed_rows == 18
        assert frame_count(pool) == 0
        assert whole_rows(pool) == rows
        assert notes(pool) == dict.fromkeys((SPANS, EVENTS), ("inline", None))


def test_what_is_done_costs_one_statement(database_url: str) -> None:
    with storing(database_url) as pool:
        write(pool, *turns([1], 2), *turns([2], 2, START - DAY))
        close(pool)
        # Everything stands where it shall, which is found out once.
        assert convert_stored_payloads(Run(pool)).partitions == (
            SPANS,
            f"trace_spans_p{START - DAY:%Y%m%d}",
        )
        with statements(pool.engine) as seen:
            assert convert_stored_payloads(Run(pool)) == MovedPayloads()
        assert len(seen) == 1


def test_without_frames_no_row_is_read_for_inline(database_url: str) -> None:
    with storing(database_url, "inline") as pool:
        write(pool, *turns([1], 2), payloads="inline")
        close(pool)
        with statements(pool.engine) as seen:
            assert convert_stored_payloads(Run(pool)) == MovedPayloads((SPANS,))
        assert not any("FROM trace_spans" in text or "FROM trace_events" in text for text in seen)


def test_another_threshold_moves_them_again(database_url: str) -> None:
    with storing(database_url, threshold_bytes=100_000) as pool:
        write(pool, *turns([1], 2), payloads="inline")
        close(pool)
        assert convert_stored_payloads(Run(pool)) == MovedPayloads((SPANS,))
    with storing(database_url, threshold_bytes=500) as pool:
        assert convert_stored_payloads(Run(pool)).changed_rows == 4
        assert notes(pool)[SPANS] == ("compressed 500", None)


class Turns(Deadline):
    """Is over after some questions."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    @property
    def is_over(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_run_goes_on_where_the_last_one_stopped(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_walk, "_TRACES_AT_A_TIME", 2)
    with storing(database_url) as pool:
        write(pool, *turns(range(1, 10), 1), payloads="inline")
        close(pool)
        rows = whole_rows(pool)
        lines: list[str] = []
        results: list[MovedPayloads] = []
        moved = 0
        while not results or not results[-1].is_complete:
            # The space of former rows is freed meanwhile, which keeps the position.
            assert SPANS in close(pool) or len(results) != 1 or citus.URL
            # Where tables have shards, each of the two traces takes a turn.
            turns_left = Turns(6 if citus.URL else 4)
            run = Run(pool, deadline=turns_left, progress=lines.append)
            results.append(convert_stored_payloads(run))
            moved = sum(result.changed_rows for result in results)
            assert framed_rows(pool) == moved
            check_payloads(pool)
            assert notes(pool)[SPANS][0] == "compressed 1200"
            assert (notes(pool)[SPANS][1] is None) == results[-1].is_complete
        assert len(results) > 2
        assert sum(result.rows for result in results) == 18
        assert moved == 18
        assert whole_rows(pool) == rows
        assert lines[-1].endswith(f"in {SPANS}")


@citus.not_there("late rows do not close a partition again")
def test_many_late_rows_are_moved_too(database_url: str) -> None:
    with storing(database_url) as pool:
        write(pool, *turns([1], 2), payloads="inline")
        close(pool)
        assert convert_stored_payloads(Run(pool)).changed_rows == 4
        # The rows that were moved do not count as late ones.
        assert SPANS in close(pool)
        assert convert_stored_payloads(Run(pool)) == MovedPayloads()
        write(pool, *turns([2], 2), payloads="inline")
        assert convert_stored_payloads(Run(pool)) == MovedPayloads()
        assert SPANS in close(pool)
        assert convert_stored_payloads(Run(pool)).changed_rows == 4
        check_payloads(pool)


def test_rows_of_damaged_frames_are_told_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with storing(database_url, "inline") as pool:
        write(pool, *turns([1, 2], 1))
        close(pool)
        with pool.engine.begin() as connection:
            frame = connection.scalar(sa.select(TraceSpan.payload_frame).limit(1))
            this = PayloadFrame.id == frame
            connection.execute(sa.update(PayloadFrame).where(this).values(data=b"damaged"))
        done = convert_stored_payloads(Run(pool))
        assert (done.changed_rows, done.failed_rows, done.is_complete) == (2, 2, True)
        assert str(frame) in caplog.text
        assert convert_stored_payloads(Run(pool)) == MovedPayloads()


def test_what_the_command_moved_elsewhere_is_moved_back(database_url: str) -> None:
    with storing(database_url) as pool:
        write(pool, *turns([1], 1), *turns([2], 1, START - 3 * DAY))
        close(pool)
        assert convert_stored_payloads(Run(pool)).is_complete
        convert_payloads(pool, "compressed")
        assert None not in notes(pool).values()
        convert_payloads(pool, "inline", START - DAY)
        assert notes(pool)[SPANS] == notes(pool)[EVENTS] == (None, None)
        assert notes(pool)[f"trace_spans_p{START - 3 * DAY:%Y%m%d}"][0] == "compressed 1200"
        assert convert_stored_payloads(Run(pool)).changed_rows == 2
        check_payloads(pool)
