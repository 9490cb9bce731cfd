"""``maintain``, and what ``check`` says of its runs."""

from __future__ import annotations

import json

from observatory_storage.cli.maintain_command import summary
from observatory_storage.pool import StoragePool
from tests.commands import Run


def test_each_step_is_told(run: Run, database_url: str) -> None:
    done = run("maintain", DATABASE_URL=database_url)
    assert done.code == 0, done.err
    assert "settle_usage" in done.out
    assert "nothing to do" in done.out


def test_json_has_the_whole_report(run: Run, database_url: str) -> None:
    done = run("maintain", "--json", DATABASE_URL=database_url)
    report = json.loads(done.out)
    assert report["steps"][0]["error"] is None
    assert report["is_skipped"] is False


def test_a_duration_needs_a_unit(run: Run, database_url: str) -> None:
    refused = run("maintain", "--for", "60", DATABASE_URL=database_url)
    assert refused.code == 2
    assert "--for" in refused.err
    assert run("maintain", "--for", "60s", DATABASE_URL=database_url).code == 0


def test_check_tells_the_last_run(run: Run, database_url: str, pool: StoragePool) -> None:
    assert "never run" in run("check", DATABASE_URL=database_url).out
    pool.maintain()
    told = run("check", DATABASE_URL=database_url)
    assert told.code == 0, told.out
    assert "last run at" in told.out
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE maintenance_runs SET error = 'one: full', steps = '[]'")
    failed = run("check", DATABASE_URL=database_url)
    assert failed.code == 1
    assert "one: full" in failed.out


def test_one_is_told_in_the_singular() -> None:
    result = {"hours": 1, "changed_rows": 1_204, "made": ["a"], "failed": [], "is_complete": True}
    assert summary(result) == "1 hour, 1,204 changed rows, 1 made"
