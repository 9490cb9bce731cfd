"""`retention`: what it says, and what its options do."""

from __future__ import annotations

from pathlib import Path

import pytest

from observatory_storage import StoragePool
from tests.commands import Run
from tests.lifecycle.days import a_call, noon, traces_in, write_spans
from tests.writers.helpers import trace_id


@pytest.fixture(autouse=True)
def _old_and_new_traces(pool: StoragePool) -> None:
    write_spans(pool, a_call(1, 1, noon(10)), a_call(2, 1, noon(10)), a_call(3, 1, noon(1)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(2))
        work.commit()


def test_without_settings_nothing_goes(run: Run, database_url: str, pool: StoragePool) -> None:
    result = run("retention", DATABASE_URL=database_url)
    assert result.code == 0
    assert result.out.splitlines() == ["none", "0 traces deleted, 0 old ones spared"]
    assert traces_in(pool) == {1, 2, 3}


def test_a_dry_run_shows_what_would_go(run: Run, database_url: str, pool: StoragePool) -> None:
    result = run("retention", "--dry-run", "--traces", "3d", DATABASE_URL=database_url)
    titles, spans, events, summary = result.out.splitlines()
    assert titles.split() == ["PARTITION", "FROM", "TO", "ROWS", "SIZE", "KEPT", "OUTCOME"]
    day = noon(10)
    assert spans.startswith(f"trace_events_p{day:%Y%m%d}  {day:%Y-%m-%d} 00:00")
    assert spans.endswith("would go")
    assert events.startswith(f"trace_spans_p{day:%Y%m%d}")
    assert summary == "1 trace would be deleted, 1 old one spared"
    assert traces_in(pool) == {1, 2, 3}


def test_options_override_settings(
    run: Run, database_url: str, pool: StoragePool, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    arguments = ("--traces", "3d", "--archive", str(archive), "--json")
    settings = {"DATABASE_URL": database_url, "OBSERVATORY_RETENTION_TRACES": "90d"}
    done = run("retention", *arguments, **settings).document
    assert (done["dry_run"], done["traces"], done["kept_traces"]) == (False, 1, 1)
    assert [one["outcome"] for one in done["partitions"]] == ["rewritten", "rewritten"]
    assert [Path(file["path"]).parent for file in done["archives"]] == [archive]
    assert done["is_complete"]
    assert traces_in(pool) == {2, 3}


def test_settings_are_those_of_the_configuration(
    run: Run, database_url: str, pool: StoragePool
) -> None:
    settings = {
        "DATABASE_URL": database_url,
        "OBSERVATORY_RETENTION_TRACES": "3d",
        "OBSERVATORY_RETENTION_KEEP": '{"operation": "chat"}',
    }
    assert "2 old ones spared" in run("retention", **settings).out
    assert traces_in(pool) == {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--traces", "90"), "--traces': must have a unit, such as 2w, 90d"),
        (("--for", "soon"), "--for': must be a duration"),
        (("--max-bytes", "many"), "retention.max_bytes = 'many': must be a size such as 500MB"),
    ],
)
def test_a_mistake_is_named(
    run: Run, database_url: str, arguments: tuple[str, ...], message: str
) -> None:
    result = run("retention", *arguments, DATABASE_URL=database_url)
    assert result.code
    assert message in " ".join(result.err.split())


def test_what_is_left_is_told(run: Run, database_url: str) -> None:
    result = run("retention", "--traces", "3d", "--for", "0.000001s", DATABASE_URL=database_url)
    assert result.code == 1
    assert result.out.splitlines()[-1] == "not complete: the next run goes on"
