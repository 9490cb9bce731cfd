"""Rows are archived before they are deleted, and `ingest` takes them back whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from observatory_storage.errors import ConfigError
from observatory_storage.lifecycle import partition_removal
from observatory_storage.lifecycle import retention as retention_module
from observatory_storage.lifecycle.archive import Archive
from observatory_storage.lifecycle.retention_results import RetentionResult
from observatory_storage.lifecycle.trace_expiry import TraceExpiry
from observatory_storage.otlp.compression import zstd_module
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, LogWriter, MetricWriter, TraceWriter
from tests.commands import Run, runner
from tests.lifecycle.days import DAY, HOUR, a_call, noon, oddities, retain, traces_in, write_spans
from tests.lifecycle.test_late_spans import before
from tests.writers.helpers import a_log, a_metric, a_point, contents, empty, trace_id

# As OTLP has it: the service is an attribute of the resource.
SHOP = {"service.name": "shop", "host": "a"}
Ingest = Callable[[RetentionResult], None]
OLD: dict[str, Any] = {"traces": "3d", "metrics": "3d", "logs": "3d"}


@pytest.fixture
def ingest(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    database_url: str,
) -> Ingest:
    """Ingests the files of a result by the command line."""
    run: Run = runner(monkeypatch, capfd, tmp_path_factory.mktemp("empty"))

    def ingest_files(result: RetentionResult) -> None:
        files = [str(file.path) for file in result.archives]
        done = run("ingest", *files, DATABASE_URL=database_url)
        assert (done.code, done.err) == (0, "")

    return ingest_files


@pytest.fixture(autouse=True)
def _nothing_odd(database_url: str) -> Any:
    yield
    assert oddities(database_url) == {}


def write_everything(pool: StoragePool) -> None:
    """Rows of several days and all signals, some of them unusual."""
    write_spans(
        pool,
        *(
            a_call(
                trace,
                number,
                noon(day) + number * HOUR,
                attributes={"gen_ai.request.model": "gpt-4o", "n": 2**50, "f": 1.0},
                resource_attributes=SHOP,
                total_tokens=None,
                total_cost_usd=None,
            )
            for day in (9, 10)
            for trace in (day, 10 * day)
            for number in (1, 2, 3)
        ),
    )
    with TraceWriter(pool) as writer:
        writer.write_trace(
            {
                "trace_id": trace_id(9),
                "service_name": "shop",
                "start_time": noon(9),
                "status_message": "it broke",
                "attributes": {"ticket": 17, "exact": 2**70},
            }
        )
        writer.write_trace(
            {
                "trace_id": "a conversation",
                "service_name": "shop",
                "start_time": noon(8),
                "end_time": noon(8) + HOUR,
                "total_cost_usd": Decimal("0.12345678901234567890123456789"),
                "resource_attributes": {"host": "a"},
            }
        )
    with LogWriter(pool) as logs:
        logs.write_logs(
            [
                a_log(timestamp=noon(day), trace_id=trace_id(9), resource_attributes=SHOP)
                for day in (8, 9)
            ]
        )
        logs.write_log(
            a_log(timestamp=noon(9), body=None, body_json={"a": [1, 2.5]}, resource_attributes=SHOP)
        )
    with MetricWriter(pool) as metrics:
        key = metrics.write_metric(a_metric(resource_attributes=SHOP))
        metrics.write_data_points([a_point(key, timestamp=noon(day)) for day in (7, 8, 9)])


def test_what_was_archived_comes_back_whole(
    pool: StoragePool, database_url: str, ingest: Ingest, tmp_path: Path
) -> None:
    write_everything(pool)
    stored = contents(pool, times_of_writing=False)
    with psycopg.connect(database_url) as connection:
        (at,) = connection.execute("SELECT updated_at FROM metrics").fetchone() or ()
        connection.execute("UPDATE metrics SET updated_at = %s", [at - 4 * DAY])
    result = retain(pool, **OLD, archive=tmp_path / "new" / "archive")
    assert (result.traces, result.metrics) == (5, 1)
    left = contents(pool, times_of_writing=False)
    assert all(rows == [] for rows in left.values())
    names = sorted(file.path.name for file in result.archives)
    days = [f"{noon(day):%Y%m%d}" for day in (10, 9, 8, 7)]
    assert [name for name in names if "traces" not in name] == [
        *(f"logs-{day}.jsonl.zst" for day in days[1:3]),
        *(f"metrics-{day}.jsonl.zst" for day in days[1:]),
    ]
    assert {file.path for file in result.archives} == set((tmp_path / "new" / "archive").iterdir())
    assert sum(file.items for file in result.archives if "traces" in file.path.name) == 5
    assert sum(file.items for file in result.archives if "logs" in file.path.name) == 3
    ingest(result)
    assert contents(pool, times_of_writing=False) == stored


def test_only_what_goes_is_archived(pool: StoragePool, ingest: Ingest, tmp_path: Path) -> None:
    write_spans(pool, *(a_call(number, 1, noon(10)) for number in (1, 2, 3)), a_call(4, 1, noon(1)))
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(2))
        work.commit()
    result = retain(pool, **OLD, archive=tmp_path)
    assert [file.items for file in result.archives] == [2]
    assert result.kept_traces == 1
    assert traces_in(pool) == {2, 4}
    assert retain(pool, **OLD, archive=tmp_path).archives == ()
    empty(pool)
    ingest(result)
    assert traces_in(pool) == {1, 3}


def test_a_trace_that_changes_while_it_is_archived_is_archived_again(
    pool: StoragePool,
    database_url: str,
    ingest: Ingest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_spans(pool, *(a_call(number, 1, noon(10)) for number in (1, 2)))
    late = a_call(2, 2, noon(10) + HOUR)
    stored: dict[str, list[str]] = {}

    def change() -> None:
        write_spans(pool, late)
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE trace_spans SET name = 'other' WHERE span_id LIKE '%1'")
        stored.update(contents(pool, times_of_writing=False))

    with before(monkeypatch, TraceExpiry, "delete", change) as called:
        result = retain(pool, **OLD, archive=tmp_path)
    assert called
    assert [file.items for file in result.archives] == [2, 2]
    assert result.archives[1].path.name.endswith("-2.jsonl.zst")
    assert traces_in(pool) == set()
    ingest(result)
    again = contents(pool, times_of_writing=False)
    for table in ("traces", "trace_spans", "trace_events"):
        assert len(again[table]) == len(stored[table])
    with pool.unit_of_work() as work:
        assert {span.name for span in work.traces.list_spans()} == {"other", "chat"}


@pytest.mark.parametrize("point", ["remove", "_detach"])
def test_log_records_that_come_while_others_are_archived_are_archived_too(
    pool: StoragePool,
    ingest: Ingest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    write_all = CopyWriter(pool).write_logs
    write_all([a_log(timestamp=noon(10), body="early")])
    module = retention_module if point == "remove" else partition_removal
    late = a_log(timestamp=noon(10), body="late")
    with before(monkeypatch, module, point, lambda: write_all([late])):
        result = retain(pool, **OLD, archive=tmp_path)
    stored = {"early", "late"}
    assert len(result.archives) == 2
    with pool.unit_of_work() as work:
        assert list(work.logs.list()) == []
    ingest(result)
    with pool.unit_of_work() as work:
        assert {log.body for log in work.logs.list()} == stored


def test_a_file_that_was_not_completed_is_written_anew(
    pool: StoragePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spans(pool, a_call(1, 1, noon(10)))

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(KeyboardInterrupt):
            retain(pool, **OLD, archive=tmp_path)
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    assert traces_in(pool) == {1}
    result = retain(pool, **OLD, archive=tmp_path)
    assert list(tmp_path.iterdir()) == [file.path for file in result.archives]
    assert result.archives[0].bytes == result.archives[0].path.stat().st_size


def test_a_directory_that_cannot_be_written_to_is_refused(
    pool: StoragePool, tmp_path: Path
) -> None:
    write_spans(pool, a_call(1, 1, noon(10)))
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(ConfigError, match=r"retention.archive: .*file: File exists"):
        retain(pool, **OLD, archive=taken)
    assert traces_in(pool) == {1}


def test_without_zstd_nothing_is_deleted(
    pool: StoragePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spans(pool, a_call(1, 1, noon(10)))
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"retention.archive: .*observatory-storage\[zstd\]"):
        retain(pool, **OLD, archive=tmp_path)
    assert traces_in(pool) == {1}


def test_a_file_has_the_range_of_its_partition_in_its_name(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from observatory_storage.lifecycle.archive import range_label

    def at(*parts: int) -> datetime:
        return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]  # year, month, day

    least, greatest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    cases: list[tuple[datetime, datetime, str]] = [
        (at(2026, 1, 1), at(2026, 1, 2), "20260101"),
        (at(2026, 1, 1), at(2026, 2, 1), "20260101-20260201"),
        (at(2026, 1, 1, 5), at(2026, 1, 1, 6), "20260101T050000-20260101T060000"),
        (least, at(2000, 1, 1), "until-20000101"),
        (at(2100, 1, 1), greatest, "from-21000101"),
    ]
    assert [range_label(lower, upper) for lower, upper, _ in cases] == [name for *_, name in cases]
    archive = Archive(tmp_path)
    counted: Callable[[], int] = lambda: 7  # noqa: E731 - typed
    first, second = (archive.write("logs-x", [{"a": 1}], counted) for _ in range(2))
    assert (first.path.name, second.path.name) == ("logs-x.jsonl.zst", "logs-x-2.jsonl.zst")
    assert zstd_module().decompress(first.path.read_bytes()) == b'{"a":1}\n'
