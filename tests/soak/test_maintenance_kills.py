"""Maintenance killed many times at random, and a hundred days left to it alone."""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import mean

import pytest

from tests.lifecycle.pools import kept_pool
from tests.lifecycle.simulated_days import DAY, SimulatedDays
from tests.lifecycle.test_killed_maintenance import check_kills
from tests.servers import Server
from tests.soak.scale import FULL, scaled, seeded


@pytest.mark.skipif(not FULL, reason="tests/lifecycle/test_killed_maintenance.py kills a few")
def test_maintenance_that_is_killed_at_random_comes_to_the_same(
    postgres_server: Server, database_url: str
) -> None:
    kills = check_kills(postgres_server, database_url, seeded(), kills=50)
    print("killed at statements", kills)


def test_a_hundred_days_are_kept_by_maintenance_alone(database_url: str) -> None:
    count, kept, traces = scaled((4, 2, 10), (100, 20, 300))
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with kept_pool(database_url, days=kept) as pool:
        days = SimulatedDays(pool, database_url, today - count * DAY, kept, traces)
        for number in range(count):
            days.run_day(number)
    # Once the first days have gone, the store stays as large as it is.
    full, last = days.bytes_by_day[kept + 1], days.bytes_by_day[-1]
    print(f"{full / 1e6:.1f} MB when the first day had gone, {last / 1e6:.1f} MB at the end")
    third = max(1, count // 10)
    first_secs, last_secs = mean(days.write_secs[:third]), mean(days.write_secs[-third:])
    print(f"writing a day took {first_secs:.3f} s at first, {last_secs:.3f} s at the end")
