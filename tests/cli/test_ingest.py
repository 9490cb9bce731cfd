"""`ingest`: files as they come, good and bad."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.commands import (
    ACCEPTED,
    Run,
    lines,
    logs_request,
    metrics_request,
    rows,
    runner,
    traces_request,
    wait_for,
)


def all_lines() -> bytes:
    return lines(traces_request(), metrics_request(), logs_request())


def test_every_form_and_signal(ingest: Run, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "spans.json").write_text(json.dumps(traces_request(), indent=2))
    # Trace and span ids are bytes there, and in base64 to protobuf's own parser: left out here.
    metrics = ParseDict(metrics_request(), ExportMetricsServiceRequest())
    (tmp_path / "metrics.pb").write_bytes(metrics.SerializeToString())
    (tmp_path / "logs.jsonl").write_bytes(lines(logs_request()))
    result = ingest("spans.json", "metrics.pb", "logs.jsonl")
    assert result.code == 0, result.err
    assert [" ".join(line.split()) for line in result.out.splitlines()] == [
        "FILE REQUESTS SPANS DATA POINTS LOGS REJECTED",
        "spans.json 1 5 0 0 0",
        "metrics.pb 1 0 3 0 0",
        "logs.jsonl 1 0 0 3 0",
    ]
    assert not result.err  # no progress bar where nobody sees it
    assert rows(database_url) == ACCEPTED


def test_lines_of_all_signals_twice(ingest: Run, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_bytes(b"\xef\xbb\xbf\n\n" + all_lines() + b"\n")
    for _ in range(2):
        (report,) = ingest("all.jsonl", "--json").lines
        assert report == {
            "file": "all.jsonl",
            "requests": 3,
            "accepted": ACCEPTED,
            "rejected": 0,
            "problems": [],
        }
        assert rows(database_url) == ACCEPTED


def test_standard_input(ingest: Run, database_url: str) -> None:
    (report,) = ingest("-", "--json", stdin=all_lines()).lines
    assert report["file"] == "standard input"
    assert rows(database_url) == ACCEPTED


def test_a_bad_line_costs_only_itself(ingest: Run, database_url: str, tmp_path: Path) -> None:
    broken = all_lines().replace(b'{"resourceMetrics"', b'{"resourceMetrics')
    (tmp_path / "all.jsonl").write_bytes(broken + lines({"unknown": []}))
    result = ingest("all.jsonl", "--json")
    assert result.code == 1
    first, second = result.err.splitlines()
    assert first.startswith("error: all.jsonl:2: ")
    assert second.startswith("error: all.jsonl:4: ")
    assert result.lines[0]["requests"] == 2
    assert rows(database_url) == {**ACCEPTED, "data_points": 0}


def test_a_bad_span_costs_only_itself(ingest: Run, database_url: str, tmp_path: Path) -> None:
    request = traces_request()
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["spanId"] = "nothex"
    (tmp_path / "spans.json").write_bytes(lines(request))
    result = ingest("spans.json")
    assert result.code == 1
    assert result.err.startswith("error: spans.json:1: number 2 of its spans: ")
    assert rows(database_url)["spans"] == ACCEPTED["spans"] - 1


def test_a_bad_file_costs_only_itself(ingest: Run, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(all_lines())
    (tmp_path / "empty.json").write_bytes(b"\n \n")
    (tmp_path / "cut.json").write_text(json.dumps(logs_request(), indent=2)[:-5])
    (tmp_path / "photo.pb").write_bytes(b"\xff\xd8\xff\xe0" * 99)  # as JPEG begins
    (tmp_path / "folder.json").mkdir()
    bad = ["missing.json", "empty.json", "cut.json", "photo.pb", "folder.json"]
    result = ingest(*bad[:3], "good.jsonl", *bad[3:])
    assert result.code == 1
    assert [line.split(":")[1].strip() for line in result.err.splitlines()] == bad
    assert "missing.json: cannot be read: No such file or directory" in result.err
    assert rows(database_url) == ACCEPTED


def test_many_problems_are_counted(ingest: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"{}\n" + b'{"x": 1}\n' * 100)
    result = ingest("bad.jsonl")
    assert result.code == 1
    *shown, last = result.err.splitlines()
    assert len(shown) == 20
    assert last.endswith("more problems")


def test_protobuf_that_begins_like_an_empty_line(
    ingest: Run, database_url: str, tmp_path: Path
) -> None:
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=1_700_000_000_000_000_000
    ).body.string_value = "\n\n" + "x" * 90
    payload = logs.SerializeToString()
    assert payload.startswith(b"\n")
    (tmp_path / "logs.pb").write_bytes(payload)
    result = ingest("logs.pb")
    assert result.code == 0, result.err
    assert rows(database_url)["logs"] == 1


def test_ingest_ends_if_the_server_cannot_be_reached(ingest: Run, tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_bytes(all_lines())
    url = "postgresql://u:x@127.0.0.1:1/a"
    result = ingest("all.jsonl", DATABASE_URL=url, DB_RETRY_MAX_ATTEMPTS="1")
    assert result.code == 1
    assert "Nothing listens on 127.0.0.1 port 1" in result.err


def test_interrupt_ends_it_quietly(database_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "observatory_storage", "ingest", "-", "--json"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": database_url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(lines(logs_request()))
    process.stdin.flush()
    with psycopg.connect(database_url, autocommit=True) as connection:
        count = "SELECT count(*) FROM logs"
        wait_for(lambda: connection.execute(count).fetchone() != (0,), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err.strip()) == (b"", b"")


def test_protobuf_without_the_extra_costs_only_itself(
    ingest: Run, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = ParseDict(logs_request() | {"resourceLogs": []}, ExportLogsServiceRequest())
    message.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "here"
    (tmp_path / "logs.pb").write_bytes(message.SerializeToString())
    (tmp_path / "logs.json").write_text(json.dumps(logs_request()))
    for name in [each for each in sys.modules if each.startswith("opentelemetry.proto")]:
        monkeypatch.setitem(sys.modules, name, None)
    result = ingest("logs.pb", "logs.json")
    assert result.code == 1
    assert "error: logs.pb: OTLP in protobuf needs the extra" in result.err
    assert rows(database_url)["logs"] == ACCEPTED["logs"]


def test_escape_sequences_of_ingested_items_do_not_reach_the_terminal(
    ingest: Run,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    evil = "\x1b]0;title\x07\x1b[31m[red]a\u200db\x00\r\n" + "x" * 900
    named = {"attributes": [{"key": "service.name", "value": {"stringValue": evil}}]}
    body = {"stringValue": evil}
    record = {"severityText": evil, "severityNumber": 17, "body": body, "eventName": evil}
    logs = [{"resource": named, "scopeLogs": [{"logRecords": [record]}]}]
    point = {"timeUnixNano": 1, "asDouble": 1, "attributes": [{"key": "by", "value": body}]}
    metric = {"name": evil, "unit": evil, "description": evil, "gauge": {"dataPoints": [point]}}
    metrics = [{"resource": named, "scopeMetrics": [{"metrics": [metric]}]}]
    stdin = lines({"resourceLogs": logs}, {"resourceMetrics": metrics})
    assert ingest("-", stdin=stdin).code == 0
    show = runner(monkeypatch, capfd, tmp_path)
    for command in ("logs", "metrics"):
        for columns in (80, 120, 200):
            shown = show(command, columns=columns, DATABASE_URL=database_url).out
            assert not set("\x1b\x07\x00\r") & set(shown)
            assert all(len(line) <= columns for line in shown.splitlines())
            # Every column is there, however long its neighbours are.
            assert len(shown.splitlines()[1].split("\u2026")) > 3
