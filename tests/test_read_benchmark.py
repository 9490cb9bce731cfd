"""The benchmark of reading runs on the data that it describes, and reports some numbers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from observatory_storage import LogFilters, SpanFilters, StoragePool, TraceFilters
from tests.benchmarks.reading import leaving
from tests.benchmarks.reading.__main__ import main
from tests.benchmarks.reading.dataset import DAY, Dataset, Sizes
from tests.benchmarks.reading.load import load
from tests.benchmarks.reading.prose import prose
from tests.benchmarks.reading.sections import QUESTIONS, SECTIONS
from tests.benchmarks.reading.store import Kept
from tests.benchmarks.reading.timing import hand, timed
from tests.servers import RUN, Server

NAME = f"{RUN}_read"
TINY = (
    *(
        "--spans",
        "300",
        "--days",
        "2",
        "--small",
        "100",
        "--walk",
        "40",
        "--older",
        "40",
        "--jobs",
        "1",
    ),
    *("--executions", "1", "--seconds", "0", "--name", NAME),
)
GUIDE = """
before
<!-- plans -->
of another run
<!-- end of plans -->
after
"""
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def server(postgres_server: Server) -> Iterator[Server]:
    """The shared server. The databases that the benchmark keeps are dropped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", postgres_server.url)
        yield postgres_server
    for suffix in ("300", "100_small"):
        postgres_server.drop(f"{NAME}_{suffix}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """The files that the smallest complete run saves."""
    docs = tmp_path_factory.mktemp("docs")
    (docs / "reading.md").write_text(GUIDE)
    saved = docs / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaving, "_ROUNDS", 1)  # each is four processes
        main([*TINY, "--save", str(saved)])
    return saved


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "read.json").read_text())
    return read


@pytest.fixture
def data() -> Dataset:
    sizes = Sizes(spans=200, traces=20, logs=60, points=30, days=2)
    return Dataset(sizes, datetime(2026, 1, 1, tzinfo=UTC))


def test_all_rows_are_stored(report: dict[str, Any]) -> None:
    rows = {one["name"]: one["rows"] for one in report["tables"]}
    assert rows["trace_spans"] == rows["logs"] == rows["metric_data_points"] == 300
    assert rows["traces"] == 30


def test_each_question_is_timed(report: dict[str, Any]) -> None:
    assert [one["question"] for one in report["questions"]] == [one.name for one in QUESTIONS]
    for one in report["questions"]:
        assert one["executions"] == 1
        assert one["p50_ms"] == one["p95_ms"] > 0
        assert one["ratio"] > 0
        assert one["growth"] > 0


def test_each_question_has_a_plan(report: dict[str, Any]) -> None:
    assert [one["question"] for one in report["plans"]] == [one.name for one in QUESTIONS]
    for one in report["plans"]:
        assert one["reads"]
        assert one["statements"] >= 1
        assert one["buffers"] > 0
        assert not [read for read in one["reads"] if re.search(r"_p\d{8}", read)]


def test_lists_and_the_large_trace_are_measured(report: dict[str, Any]) -> None:
    assert {one["name"]: one["rows"] for one in report["keyset"]} == {
        "traces": 30,
        "spans": 300,
        "logs": 300,
    }
    assert {one["way"] for one in report["walk"]} == {"iterate_spans", "get_spans", "get_tree"}
    for one in report["walk"]:
        assert one["spans"] == 40
        assert one["peak_mb"] >= one["before_mb"] > 0


def test_leaving_as_entities_and_as_arrow_is_measured(report: dict[str, Any]) -> None:
    ways = [(one["way"], one["days"]) for one in report["arrow"]]
    assert ways == [*[("entities", 1), ("Arrow", 1)] * 2, ("Arrow", 2)]
    *of_a_day, all_spans = [one["spans"] for one in report["arrow"]]
    assert len(set(of_a_day)) == 1
    assert 0 < of_a_day[0] < all_spans == 300


def test_results_name_their_machine_and_command(report: dict[str, Any]) -> None:
    assert report["command"].startswith("python -m tests.benchmarks.reading --spans 300")
    assert report["settings"]["shared_buffers"]


def test_tables_are_written_into_the_guide(folder: Path) -> None:
    guide = (folder.parent / "reading.md").read_text()
    assert guide.startswith("\nbefore\n<!-- plans -->\n")
    assert guide.endswith("\n<!-- end of plans -->\nafter\n")
    assert "| --- | --- | --: |" in guide
    assert "of another run" not in guide


def test_chart_is_well_formed(folder: Path) -> None:
    assert ET.fromstring((folder / "read.svg").read_text()).findall("{*}rect")


def test_guide_has_a_place_for_each_section() -> None:
    guide = (DOCS / "reading.md").read_text()
    for section in SECTIONS:
        assert guide.count(f"<!-- {section} -->\n") == 1
        assert guide.count(f"<!-- end of {section} -->\n") == 1


@pytest.mark.parametrize("guide", ["reading.md", "metrics.md"])
def test_examples_of_the_guides_run(
    guide: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    examples = re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text(), flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, guide, "exec"), {"__name__": "guide"})


@pytest.mark.usefixtures("folder")
def test_matching_data_are_reused(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "--only", "tables"])
    shown = capsys.readouterr().out
    assert f"{NAME}_300: 300 spans are there" in shown
    assert "loading" not in shown


@pytest.mark.usefixtures("folder")
def test_other_data_are_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "--logs", "30", "--only", "keyset"])
    shown = capsys.readouterr().out
    assert f"{NAME}_300: replacing what is there" in shown


def test_other_databases_are_not_touched(postgres_server: Server, database_url: str) -> None:
    other = database_url.rpartition("/")[2].partition("?")[0]
    sizes = Sizes(spans=1, traces=1, logs=1, points=1, days=1)
    from tests.benchmarks.reading.store import stored

    making = stored(postgres_server.url, other, sizes, jobs=1, again=True, tell=print)
    with pytest.raises(RuntimeError, match=other), making:
        pass


def test_rows_are_the_same_each_time(data: Dataset) -> None:
    assert data.trace(7) == data.trace(7)
    assert data.trace(7).asked.trace_id != data.trace(8).asked.trace_id
    assert list(data.points(3, 5)) == list(data.points(3, 5))


def test_rows_are_spread_over_the_days(data: Dataset) -> None:
    told = [data.trace(number) for number in range(20)]
    starts = [one.asked.start for one in told]
    assert starts == sorted(starts)
    by_day = [(start - data.first_day) // DAY for start in starts]
    assert by_day == [0] * 10 + [1] * 10
    for one in told:
        assert len(one.spans) == 10
        assert len(one.logs) == 3
        assert max(span["end_time"] for span in one.spans) < data.first_day + 2 * DAY
    times = [point["timestamp"] for point in data.points(0, 30)]
    assert data.first_day <= min(times) <= max(times) < data.end


@pytest.mark.parametrize("wrong", [{"spans": 205}, {"points": 31}, {"traces": 0}, {"logs": 61}])
def test_sizes_must_fit_each_other(data: Dataset, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        replace(data.sizes, **wrong)


def test_small_dataset_has_the_same_proportions(data: Dataset) -> None:
    part = data.sizes.part(5)
    assert part == Sizes(spans=40, traces=4, logs=12, points=6, days=2)
    assert data.sizes.part(1000) == Sizes(spans=20, traces=2, logs=6, points=2, days=2)


def test_words_that_are_searched_for_are_in_the_text() -> None:
    chance = random.Random(1)
    text = prose(1).text(chance, 3)
    words = prose(1).telling_words(text, chance, 2).split()
    assert len(words) == 2
    assert all(word in text for word in words)


def test_loaded_rows_are_found(pool: StoragePool, data: Dataset) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    data = replace(data, first_day=today - timedelta(days=2))
    done = load(pool.engine.url.render_as_string(hide_password=False), data, 1, print)
    assert {one.table: one.rows for one in done} == {
        "trace_spans": 200,
        "logs": 60,
        "metric_data_points": 30,
    }
    told = data.trace(3)
    with pool.unit_of_work() as uow:
        spans = uow.traces.list_spans(SpanFilters(trace_id=told.asked.trace_id))
        traces = uow.traces.list(TraceFilters(user_id=told.asked.user))
        logs = uow.logs.list(LogFilters(trace_id=told.asked.trace_id))
    assert {span.span_id for span in spans} == {span["span_id"] for span in told.spans}
    assert told.asked.trace_id in {trace.trace_id for trace in traces}
    assert len(logs) == 3


def test_differing_rows_by_hand_are_reported(pool: StoragePool, data: Dataset) -> None:
    services = next(one for one in QUESTIONS if one.name == "services")
    wrong = replace(services, by_hand=lambda connection, arguments: [("nobody",)])
    kept = Kept(pool, data, {}, reused=False)
    with (
        hand(pool) as connection,
        pytest.raises(AssertionError, match="1 by hand"),
    ):
        timed(wrong, kept, kept, connection, most=1, seconds=0)
