"""The section `retention`: where it is read from, and how its mistakes are told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from observatory_storage.config import RetentionConfig, RollupRetention, StorageConfig
from tests.config.conftest import Environment, problems

SETTINGS = RetentionConfig(
    traces=timedelta(days=90),
    metrics=timedelta(hours=36),
    rollups=RollupRetention(minute=None, hour=timedelta(days=210)),
    max_bytes=100_000_000_000,
    keep=[{"status": "error"}, {"min_cost_usd": 1.5, "attributes": {"tier": "gold"}}],
    archive=Path("/archive"),
)


def test_variables_have_the_settings(environment: Environment) -> None:
    environment(
        OBSERVATORY_RETENTION_TRACES="90d",
        OBSERVATORY_RETENTION_METRICS="36h",
        OBSERVATORY_RETENTION_ROLLUPS_HOUR="210d",
        OBSERVATORY_RETENTION_MAX_BYTES="100GB",
        OBSERVATORY_RETENTION_KEEP='[{"status": "error"},'
        ' {"min_cost_usd": 1.5, "attributes": {"tier": "gold"}}]',
        OBSERVATORY_RETENTION_ARCHIVE="/archive",
    )
    Path("storage.json").write_text('{"retention": {"rollups": {"minute": null}, "logs": null}}')
    assert StorageConfig.from_file("storage.json").retention == SETTINGS


def test_by_default_everything_is_kept() -> None:
    config = StorageConfig().retention
    assert (config.traces, config.metrics, config.logs) == (None, None, None)
    assert (config.max_bytes, config.keep, config.archive) == (None, (), None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        (7, 7),
        ("1B", 1),
        ("2 kB", 2_000),
        ("2KB", 2_000),
        ("1.5TiB", 3 * 2**39),
        ("100gb", 10**11),
    ],
)
def test_sizes_have_units(text: Any, size: int) -> None:
    assert RetentionConfig(max_bytes=text).max_bytes == size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"traces": 90}, "retention.traces = 90: must have a unit, such as 2w, 90d"),
        ({"logs": "-1d"}, "retention.logs = '-1d': must be a duration"),
        ({"rollups": {"day": "x"}}, "retention.rollups.day = 'x': must be a duration"),
        ({"rollups": {"dya": "1d"}}, "retention.rollups.dya: unknown key; did you mean 'day'?"),
        ({"max_bytes": "100"}, None),
        ({"max_bytes": "100G"}, "retention.max_bytes = '100G': must be a size such as 500MB"),
        ({"max_bytes": True}, "retention.max_bytes = True: must be a size such as 100GB"),
        ({"max_bytes": 0}, "retention.max_bytes = 0: must be at least one byte"),
        ({"keep": "x"}, "retention.keep = 'x': must be JSON"),
        ({"keep": [1]}, "retention.keep: must be a group of conditions such as {status: error}"),
        ({"keep": {}}, "retention.keep: must have a condition in each group"),
        ({"archive": " "}, "retention.archive = ' ': must not be empty"),
        ({"trace": "1d"}, "retention.trace: unknown key; did you mean 'traces'?"),
    ],
)
def test_a_mistake_is_named(given: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert RetentionConfig(**given).max_bytes == 100
    else:
        assert message in problems(lambda: RetentionConfig(**given))
