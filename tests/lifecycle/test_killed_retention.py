"""Retention is killed at any statement: the next run completes it."""

from __future__ import annotations

import random
from pathlib import Path

from tests.lifecycle.killed_retention import check_killed_runs


def test_a_killed_run_is_completed_by_the_next(database_url: str, tmp_path: Path) -> None:
    check_killed_runs(database_url, tmp_path, random.Random(17), rounds=2)
