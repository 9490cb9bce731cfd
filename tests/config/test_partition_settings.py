"""The section `partitions`: where it is read from, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from observatory_storage.config import PartitionsConfig, StorageConfig
from tests.config.conftest import Environment, problems


def test_the_defaults_are_days() -> None:
    partitions = StorageConfig().partitions
    assert {partitions.width_of(t) for t in ("trace_spans", "metric_data_points", "logs")} == {
        "day"
    }
    assert (partitions.ahead, partitions.close_after) == (timedelta(days=7), timedelta(hours=1))
    assert partitions.split_rows == 100_000


def test_variables_and_files_have_durations_as_text(environment: Environment) -> None:
    Path("storage.yaml").write_text(
        "partitions: {traces: hour, metrics: week, logs: month, ahead: 36h, split_rows: 5}"
    )
    environment(OBSERVATORY_PARTITIONS_CLOSE_AFTER="1h30m", OBSERVATORY_PARTITIONS_METRICS="day")
    partitions = StorageConfig.from_file("storage.yaml").partitions
    assert partitions.width_of("trace_spans") == partitions.width_of("trace_events") == "hour"
    assert partitions.width_of("metric_data_points") == "day"
    assert partitions.width_of("logs") == "month"
    assert partitions.ahead == timedelta(hours=36)
    assert partitions.close_after == timedelta(minutes=90)
    assert partitions.split_rows == 5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"traces": "year"},
            "partitions.traces = 'year': must be 'hour', 'day', 'week' or 'month'",
        ),
        ({"ahead": "7"}, "partitions.ahead = '7': must have a unit, such as 2w, 90d, 36h"),
        ({"ahead": 7}, "partitions.ahead = 7: must have a unit"),
        ({"close_after": "-1h"}, "partitions.close_after = '-1h': must be a duration, such as"),
        (
            {"traces": "hour", "ahead": "60d"},
            "partitions.ahead = '60d': must make at most 1,000 partitions ahead, which are 41 days"
            " of one hour each",
        ),
        ({"split_rows": 0}, "partitions.split_rows = 0: must be greater than or equal to 1"),
        ({"split_rows": True}, "partitions.split_rows = True: must be a number"),
        ({"widths": "day"}, "partitions.widths: unknown key"),
    ],
)
def test_mistakes_name_the_setting_and_the_value(given: dict[str, Any], told: str) -> None:
    assert told in problems(lambda: PartitionsConfig(**given))


def test_a_mistake_names_the_variable(environment: Environment) -> None:
    environment(OBSERVATORY_PARTITIONS_AHEAD="a week")
    told = "OBSERVATORY_PARTITIONS_AHEAD = 'a week': must be a duration, such as 2w, 90d"
    assert told in problems(StorageConfig.from_env)
