"""The Prometheus hook in multiprocess mode, with workers that were forked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.observing.metrics_text import Samples, samples, value

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def scrapes(tmp_path: Path, database_url: str) -> list[Samples]:
    """What is scraped while the workers live, and after they have ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.observing.shared_metrics"],
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
            "DB_POOL_MIN": "0",
        },
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    return [samples(text) for text in json.loads(done.stdout)]


def test_metrics_are_those_of_all_processes(scrapes: list[Samples]) -> None:
    living, ended = scrapes
    written = {"operation": "write", "table": "logs", "method": "insert"}
    for found in scrapes:  # counters outlive their process
        assert value(found, "storage_writes_total", **written, outcome="ok") == 3
        assert value(found, "storage_write_duration_seconds_count", **written) == 3
        assert value(found, "storage_items_written_total", table="logs") == 3
        assert value(found, "storage_partitions", schema="public", table="logs")
    assert value(living, "storage_pool_connections", state="active") == 2
    assert value(living, "storage_buffer_size", signal="logs") == 4
    assert value(ended, "storage_pool_connections", state="active") == 0
    assert value(ended, "storage_buffer_size", signal="logs") is None
