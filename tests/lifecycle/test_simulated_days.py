"""A store is left to `maintain` alone, while days of telemetry are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.lifecycle.pools import kept_pool
from tests.lifecycle.simulated_days import DAY, SimulatedDays


def test_rows_rollups_and_partitions_agree_at_the_end_of_each_day(database_url: str) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with kept_pool(database_url, days=2) as pool:
        days = SimulatedDays(pool, database_url, today - 10 * DAY, kept_days=2, traces_a_day=20)
        for number in range(5):
            days.run_day(number, runs=2)
        # Nothing is left in the open when nothing is written any more.
        assert pool.maintain(now=today + timedelta(days=30)).left == ()
        with pool.unit_of_work() as work:
            assert len(work.traces.list()) == 0
            # The rollups of days are kept for longer than the spans.
            costs = work.metrics.get_cost_summary(bucket_size_secs="day", group_by=())
        assert [cost.timestamp for cost in costs[:5]] == [today - (10 - n) * DAY for n in range(5)]
        assert {cost.source for cost in costs} == {"rollup"}
