"""The benchmarks run, write every row that they claim to, and report some numbers."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import sqlalchemy as sa

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.pool import StoragePool
from tests.benchmarks import (
    exporting,
    hook_costs,
    many_partitions,
    recording_costs,
    retention,
    sampling,
)
from tests.benchmarks.__main__ import main
from tests.benchmarks.chart import Bar, Panel, bars
from tests.benchmarks.limit import LIMIT
from tests.benchmarks.measure import percentile
from tests.benchmarks.ours import COPY
from tests.benchmarks.peers import PEERS
from tests.benchmarks.ways_in import OTLP, SHAPES
from tests.benchmarks.workload import moved, wide_span_rows
from tests.servers import Server

TINY = (
    *("--all", "--rows", "30", "--batch", "20", "--rounds", "1", "--batches", "1", "20"),
    *("--flushes", "2", "--calls", "1", "--buffered", "50", "--spans", "60"),
)

GUIDE = """
before
<!-- memory -->
of another run
<!-- end of memory -->
after
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, postgres_server: Server) -> Path:
    """The files that the smallest complete run saves."""
    docs = tmp_path_factory.mktemp("docs")
    (docs / "copy.md").write_text(GUIDE)
    saved = docs / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", postgres_server.url)
        main([*TINY, "--save", str(saved)])
    return saved


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "write.json").read_text())
    return read


def test_every_technique_writes_every_kind_of_row(report: dict[str, Any]) -> None:
    by_workload = Counter(one["workload"] for one in report["techniques"])
    names = {one["technique"] for one in report["techniques"]}
    assert set(by_workload.values()) == {len(names)}
    assert len(by_workload) == 4
    assert names >= {LIMIT.name, COPY.name, *(peer.name for peer in PEERS)}


@pytest.mark.parametrize("section", ["techniques", "batch_sizes", "threads"])
def test_rates_are_rows_divided_by_seconds(report: dict[str, Any], section: str) -> None:
    for one in report[section]:
        assert one["rows_per_second"] > 0
        assert one["client_us"] > 0
        assert one["ratio"] > 0
        if one["technique"] == LIMIT.name:
            assert one["ratio"] == 1


def test_every_way_in_writes_all_rows(report: dict[str, Any]) -> None:
    *written, exported = report["ways_in"]
    names = {one["technique"] for one in written}
    assert names == {LIMIT.name, *(way.name for way in (*OTLP, *SHAPES))}
    assert {one["workload"] for one in written} >= {"wide LLM spans", "logs", "data points"}
    assert exported["rows"] == 30
    assert exported["rows_per_second"] > 0


def test_payloads_are_compared_by_every_way_in(report: dict[str, Any]) -> None:
    by_workload = Counter(one["workload"] for one in report["payloads"])
    assert len(by_workload) == 6
    assert set(by_workload.values()) == {2 + len(OTLP)}
    for one in report["payloads"]:
        assert one["ratio"] > 0
        assert one["compressed_bytes"] > 0


def test_flushes_are_timed_one_by_one(report: dict[str, Any]) -> None:
    for one in report["batch_sizes"]:
        assert one["flushes"] == -(-one["rows"] // one["batch"])
        assert 0 < one["flush_p50_ms"] <= one["flush_p95_ms"]


def test_few_rows_and_memory_are_measured(report: dict[str, Any]) -> None:
    assert {one["rows"] for one in report["few_rows"]} >= {1, 128}
    assert all(0 < one["before_mb"] <= one["peak_mb"] for one in report["memory"])


def test_growth_has_a_report_of_its_own(folder: Path, report: dict[str, Any]) -> None:
    growth = json.loads((folder / "growth.json").read_text())
    assert [one["before"] for one in growth["growth"]] == [0, 30]
    assert "growth" not in report
    for of_server in ("machine", "versions", "settings", "command"):
        assert growth[of_server] == report[of_server]


def test_tables_are_written_into_the_guide(folder: Path) -> None:
    guide = (folder.parent / "copy.md").read_text()
    assert guide.startswith("\nbefore\n<!-- memory -->\n")
    assert guide.endswith("\n<!-- end of memory -->\nafter\n")
    assert "| max_buffered | batch_size | MB before | MB at most |\n| --- | --: |" in guide
    assert "of another run" not in guide


@pytest.mark.parametrize("name", ["write.svg", "growth.svg"])
def test_charts_are_well_formed(folder: Path, name: str) -> None:
    root = ET.fromstring((folder / name).read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.findall("{*}rect")


def test_labels_are_escaped() -> None:
    svg = bars([Panel("a < b", [Bar("x & y", 1.0, "<1>", "ours")])])
    assert [text.text for text in ET.fromstring(svg).findall("{*}text")] == [
        "a < b",
        "x & y",
        "<1>",
    ]


def test_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(20, 0, -1)]
    assert percentile(values, 0.5) == 10
    assert percentile(values, 0.95) == 19
    assert percentile([3.0], 0.95) == 3


def test_workloads_are_the_same_each_time() -> None:
    assert list(wide_span_rows(20)) == list(wide_span_rows(20))


def test_moved_spans_have_new_ids_in_as_many_traces() -> None:
    spans = list(wide_span_rows(20))
    later = list(moved(spans, timedelta(seconds=1)))
    assert len({span["trace_id"] for span in later}) == 2
    assert not {span["span_id"] for span in later} & {span["span_id"] for span in spans}
    assert all(
        b["start_time"] - a["start_time"] == timedelta(seconds=1)
        for a, b in zip(spans, later, strict=True)
    )
    roots = {span["trace_id"]: span["span_id"] for span in later if span["parent_span_id"] is None}
    assert all(span["parent_span_id"] in (None, roots[span["trace_id"]]) for span in later)


def test_questions_are_compared_with_few_and_many_partitions(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    many_partitions.main(["--days", "3", "18", "--repeats", "1"])
    shown = capsys.readouterr().out
    assert all(f"\n{question}  " in shown for question in many_partitions.QUESTIONS)


def test_a_past_day_is_dropped_beside_a_reader_and_a_writer(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    retention.main(["--spans", "300", "--seconds", "0.1"])
    shown = capsys.readouterr().out
    assert "300 spans of a past day" in shown
    assert ": 30 traces and 1 of 1 partitions" in shown
    assert shown.count("longest wait of the") == 2
    for told in (
        "errors: 0\n",
        "DELETE statements on partitioned tables: 0\n",
        "left of the past day: 0 spans, 0 traces\n",
    ):
        assert told in shown


def test_the_benchmark_of_retention_sees_deletes_from_partitioned_tables(pool: StoragePool) -> None:
    with retention.deletes_of(pool) as seen, pool.engine.begin() as connection:
        connection.execute(sa.delete(TraceSpan))
        connection.execute(sa.delete(Trace))
    assert [statement.split(" WHERE")[0] for statement in seen] == [
        "DELETE FROM public.trace_spans"
    ]


def test_sampling_is_compared(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    sampling.main(["--rounds", "1", "--spans", "30"])
    shown = capsys.readouterr().out
    for kind in sampling.KINDS:
        assert shown.count(f"\n  {kind} ") == 1


def test_hooks_are_compared(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    hook_costs.main(["--rounds", "1", "--calls", "1", "--rows", "5"])
    shown = capsys.readouterr().out
    for kind in hook_costs.KINDS:
        assert shown.count(f"\n  {kind} ") == 4


def test_costs_of_recording_are_measured(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    recording_costs.main(["--rounds", "1", "--calls", "2"])
    assert len(re.findall("µs CPU of the caller +[0-9.]+ µs", capsys.readouterr().out)) == 5


def test_costs_of_exporting_are_measured(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    exporting.main(["--rounds", "1", "--spans", "20", "--requests", "2"])
    printed = capsys.readouterr().out
    assert "to export" in printed
    for path in ("/no-exporter", "/exporter"):
        assert f"request {path}" in printed
