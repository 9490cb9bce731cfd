"""What the commands that read show, to people and to programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from observatory_storage import (
    PostgresConfig,
    StorageConfig,
    StoragePool,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from tests.commands import (
    OTHER_TRACE,
    TRACE,
    Result,
    Run,
    logs_request,
    metrics_request,
    runner,
    traces_request,
)
from tests.servers import Server


@pytest.fixture(scope="module")
def filled_url(postgres_server: Server, migrated_template: str) -> Iterator[str]:
    """A database with telemetry in it that no test changes."""
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            assert ingest_traces(pool, traces_request()).accepted == 5
            assert ingest_logs(pool, logs_request()).accepted == 3
            assert ingest_metrics(pool, metrics_request()).accepted == 3
        yield url


@pytest.fixture
def run(
    filled_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    bare = runner(monkeypatch, capfd, tmp_path)

    def run(*arguments: str, **given: object) -> Result:
        return bare(*arguments, **{"DATABASE_URL": filled_url, **given})

    return run


def test_traces_are_a_table(run: Run) -> None:
    result = run("traces", columns=140)
    assert result.code == 0, result.err
    head, newest, oldest = result.out.splitlines()
    assert head.split()[:5] == ["START", "(UTC)", "TRACE", "STATUS", "SERVICE"]
    assert newest.split()[:5] == [
        "2026-07-01",
        "12:01:00.000",
        OTHER_TRACE,
        "unset",
        "model-server",
    ]
    assert (
        oldest.split()
        == (
            f"2026-07-01 12:00:00.000 {TRACE} error assistant POST /ask 2.00 s 4 1! 1,234 $0.0012"
        ).split()
    )


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_tables_keep_to_the_width(run: Run, columns: int) -> None:
    for command in (["traces"], ["logs"], ["metrics"], ["trace", TRACE]):
        result = run(*command, columns=columns)
        assert result.code == 0, result.err
        assert max(len(line) for line in result.out.splitlines()) <= columns


def test_short_ids_of_a_narrow_table_lead_to_the_trace(run: Run) -> None:
    line = run("traces", "--service", "assistant", columns=80).out.splitlines()[1]
    short = line.split()[2]
    assert len(short) == 12
    assert "POST /ask" in line
    assert run("trace", short.upper()).out.splitlines()[0].endswith(TRACE)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--service", "assistant"], [TRACE]),
        (["--operation", "tick"], [OTHER_TRACE]),
        (["--status", "error"], [TRACE]),
        (["--since", "2026-07-01T12:00:30"], [OTHER_TRACE]),
        (["--until", "2026-07-01T14:00:30+02:00"], [TRACE]),
        (["--since", "1h", "--until", "1m"], []),
        (["--min-duration", "1.5s"], [TRACE]),
        (["--max-duration", "1ms"], [OTHER_TRACE]),
        (["--provider", "acme", "--model", "large", "--user", "ada"], [TRACE]),
        (["--session", "none"], []),
        (["-a", "retries=2"], [TRACE]),
        (["-a", 'retries="2"'], []),
        (["-a", "retries=2", "-a", "user.id=ada"], [TRACE]),
    ],
)
def test_filters_of_traces(run: Run, options: list[str], found: list[str]) -> None:
    result = run("traces", "--json", *options)
    assert result.code == 0, result.err
    assert [line["trace_id"] for line in result.lines] == found


def test_pages_lead_on(run: Run) -> None:
    first = run("traces", "--limit", "1", "--json")
    assert [line["trace_id"] for line in first.lines] == [OTHER_TRACE]
    cursor = first.err.split()[-1]
    assert first.err == f"more with --after {cursor}\n"
    second = run("traces", "--limit", "1", "--json", "--after", cursor)
    assert [line["trace_id"] for line in second.lines] == [TRACE]
    assert not second.err
    everything = run("traces", "--limit", "1", "--json", "--all")
    assert [line["trace_id"] for line in everything.lines] == [OTHER_TRACE, TRACE]


def test_json_is_exact(run: Run) -> None:
    result = run("traces", "--json", "--user", "ada")
    assert result.lines[0]["start_time"] == "2026-07-01T12:00:00Z"
    # As a number with all of its digits, not the nearest float.
    assert '"total_cost_usd":0.001234567,' in result.out
    assert Decimal("0.001234567") == Decimal(str(result.lines[0]["total_cost_usd"]))


def test_trace_is_a_waterfall(run: Run) -> None:
    result = run("trace", TRACE, columns=100)
    title, facts, head, *rows = result.out.splitlines()
    assert title.split() == ["POST", "/ask", "assistant", TRACE]
    assert (
        facts
        == "2026-07-01 12:00:00.000 UTC · 2.00 s · 4 spans · 1 failed · 1,234 tokens · $0.0012"
    )
    assert head.split() == ["SPAN", "0", "2.00", "s", "DURATION", "TOKENS", "COST"]
    names = [row.split("━")[0].rstrip() for row in rows]
    assert names == [
        "POST /ask assistant",
        "├ ✗ chat small",
        "    no answer within 15 s",
        "└ chat large",
        "  └ generate model-server",
    ]
    assert rows[3].split()[-4:] == ["1.40", "s", "1,234", "$0.0012"]


def test_trace_as_json_is_whole(run: Run) -> None:
    document = run("trace", TRACE, "--json").document
    assert document["trace"]["span_count"] == len(document["spans"]) == 4
    assert [event["name"] for event in document["events"]] == ["exception"]
    assert document["spans"][2]["attributes"]["retries"] == 2
    assert document["spans"][0]["start_ns"] == 7


def test_trace_shows_no_more_than_its_limit(run: Run) -> None:
    shown = run("trace", TRACE, "--limit", "1").out
    assert "… 3 more spans, 1 of them failed: a higher --limit shows them" in shown


@pytest.mark.parametrize(
    ("trace_id", "message"),
    [
        ("5b8e", f"several traces begin with 5b8e: {TRACE}, {OTHER_TRACE}"),
        ("5b8f", "there is no trace 5b8f"),
        ("%", "there is no trace %"),
    ],
)
def test_trace_that_is_not_found(run: Run, trace_id: str, message: str) -> None:
    result = run("trace", trace_id)
    assert result.code == 1
    assert f"error: {message}" in result.err
    assert "Traceback" not in result.err


def test_logs_are_a_table(run: Run) -> None:
    result = run("logs", "--level", "error")
    _, line = result.out.splitlines()
    # Neither the terminal nor rich takes what was logged for an order.
    assert " ".join(line.split()) == (
        f"2026-07-01 12:00:01.000 ERROR assistant {TRACE} the model [bold]gave up[/bold]\ufffd[31m"
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--text", '"gave up"'], [17]),
        (["--level", "17"], [17]),
        (["--trace", TRACE], [17, 9]),
        (["--trace", TRACE, "--span", "00000000000000a1"], [9]),
        (["-a", "attempt=3"], [17]),
        (["--service", "assistant", "--until", "2026-07-01T12:00:01"], [9]),
    ],
)
def test_filters_of_logs(run: Run, options: list[str], found: list[int]) -> None:
    result = run("logs", "--json", *options)
    assert result.code == 0, result.err
    assert [line["severity_number"] for line in result.lines] == found


def test_logs_as_json_are_whole(run: Run) -> None:
    newest = run("logs", "--json").lines[0]
    assert newest["event_name"] == "done"
    assert newest["body_json"] == {"size": 5}
    assert newest["resource_attributes"] == {"service.name": "assistant"}


def test_metrics_are_a_table(run: Run) -> None:
    _, line = run("metrics").out.splitlines()
    assert " ".join(line.split()) == "requests counter delta {request} assistant Requests served"
    assert run("metrics", "--json", "--type", "gauge").lines == []


def test_metric_over_time(run: Run) -> None:
    series = ["requests", "--aggregation", "sum", "--by", "model", "--bucket", "2m"]
    times = ["--since", "2026-07-01T12:00", "--until", "2026-07-01T13:00"]
    result = run("metrics", *series, *times)
    title, _, *rows = result.out.splitlines()
    assert title == "requests, sum in {request}, assistant (counter)"
    assert [row.split() for row in rows] == [
        ["2026-07-01", "12:00:00.000", "30", "large"],
        ["2026-07-01", "12:02:00.000", "30", "large"],
    ]
    points = run("metrics", *series, *times, "--json").lines
    assert [(point["timestamp"], point["value"], point["group"]) for point in points] == [
        ("2026-07-01T12:00:00Z", 30, {"model": "large"}),
        ("2026-07-01T12:02:00Z", 30, {"model": "large"}),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["traces", "--since", "yesterday"],
        ["traces", "--min-duration", "5"],
        ["traces", "-a", "novalue"],
        ["traces", "-a", "a=1", "-a", "a=2"],
        ["traces", "--limit", "0"],
        ["metrics", "--aggregation", "sum"],
        ["unknown"],
    ],
)
def test_wrong_use_is_told_from_failure(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage:" in result.err
    assert not result.out


def test_a_cursor_of_another_query_is_refused(run: Run) -> None:
    cursor = run("traces", "--limit", "1").err.split()[-1]
    result = run("traces", "--status", "error", "--after", cursor)
    assert result.code == 2
    assert "Invalid value for '--after': " in result.err


def test_missing_tables_bring_advice(
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run = runner(monkeypatch, capfd, tmp_path)
    result = run("traces", DATABASE_URL=empty_database_url)
    assert result.code == 1
    assert "Run: observatory-storage migrate" in result.err
    assert "Traceback" not in result.err
    debugged = run("traces", "--log-level", "debug", DATABASE_URL=empty_database_url)
    assert "Traceback" in debugged.err
    migrated = run("migrate", "--json", DATABASE_URL=empty_database_url).document
    assert migrated["before"] is None
    again = run("migrate", DATABASE_URL=empty_database_url)
    assert again.out == f"schema public is already at the newest revision, {migrated['now']}\n"
    assert run("traces", DATABASE_URL=empty_database_url).out == "none\n"


@pytest.mark.parametrize("options", [["--json", "--all"], []], ids=str)
def test_a_reader_that_leaves_is_no_error(
    filled_url: str, tmp_path: Path, options: list[str]
) -> None:
    command = [sys.executable, "-m", "observatory_storage", "traces", *options]
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": filled_url},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert ended.returncode == 0
    assert ended.stderr == b""


def test_long_numbers_keep_their_digits() -> None:
    from observatory_storage.cli.json_values import json_value

    shown = orjson.dumps(json_value({"a": 2**70, "b": Decimal("1E-20"), "c": [1.0]}))
    assert shown == b'{"a":1180591620717411303424,"b":0.00000000000000000001,"c":[1.0]}'
