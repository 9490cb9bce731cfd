"""`export`: what it prints, `ingest` stores again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import TRACE, Run

SIGNALS = ("traces", "metrics", "logs")


def test_exported_lines_are_ingested_without_loss(
    run_on_filled: Run, database_url: str, tmp_path: Path
) -> None:
    exported = {signal: run_on_filled("export", signal) for signal in SIGNALS}
    assert [result.code for result in exported.values()] == [0, 0, 0]
    lines = "".join(result.out for result in exported.values())
    ingested = run_on_filled(
        "ingest", "-", "--json", stdin=lines.encode(), DATABASE_URL=database_url
    )
    assert ingested.code == 0, ingested.err
    assert ingested.lines[0]["accepted"] == {"spans": 5, "data_points": 3, "logs": 3}
    for signal, before in exported.items():
        again = run_on_filled("export", signal, DATABASE_URL=database_url)
        assert again.out == before.out


@pytest.mark.parametrize(
    ("arguments", "key", "count"),
    [
        (["traces", "--service", "assistant"], "spanId", 4),
        (["traces", "--operation", "tick"], "spanId", 1),
        (["traces", "--since", "1h"], "spanId", 0),
        (["logs", "--trace", TRACE[:8]], "severityNumber", 2),
        (["logs", "--level", "error"], "severityNumber", 1),
        (["logs", "--contains", "gave", "--since", "2026-06-01"], "severityNumber", 1),
        (["metrics", "requests"], "asInt", 3),
        (["metrics", "--type", "gauge"], "asInt", 0),
    ],
)
def test_filters_choose_what_is_exported(
    run_on_filled: Run, arguments: list[str], key: str, count: int
) -> None:
    result = run_on_filled("export", *arguments)
    assert result.code == 0, result.err
    assert result.out.count(f'"{key}"') == count
    assert all(isinstance(request, dict) for request in result.lines)


def test_export_to_a_file(run_on_filled: Run, tmp_path: Path) -> None:
    result = run_on_filled("export", "logs", "--output", "logs.jsonl")
    assert (result.code, result.out, result.err) == (0, "", "")
    (line,) = (tmp_path / "logs.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == ["resourceLogs"]
    missing = run_on_filled("export", "logs", "-o", "missing/logs.jsonl")
    assert missing.code == 1
    assert "No such file or directory" in missing.err
    assert "Traceback" not in missing.err
