"""Retention killed many times at random, with an archive and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifecycle.killed_retention import check_killed_runs
from tests.soak.scale import FULL, seeded


@pytest.mark.skipif(not FULL, reason="tests/lifecycle/test_killed_retention.py kills a few")
def test_retention_that_is_killed_at_random_is_completed(database_url: str, tmp_path: Path) -> None:
    kills = check_killed_runs(database_url, tmp_path, seeded(), rounds=50)
    print("killed at statements", kills)
