"""Wrong usage, refused values, and errors of the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import (
    Run,
    runner,
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["traces", "--since", "yesterday"],
        ["traces", "--min-duration", "5"],
        ["traces", "-a", "novalue"],
        ["traces", "-a", "a=1", "-a", "a=2"],
        ["traces", "--limit", "0"],
        ["metrics", "--aggregation", "sum"],
        ["metrics", "requests", "--bucket", "5m"],
        ["metrics", "--by", "model"],
        ["metrics", "--since", "1h"],
        ["metrics", "requests", "--merge"],
        ["unknown"],
    ],
)
def test_wrong_use_is_told_from_failure(run_on_filled: Run, arguments: list[str]) -> None:
    result = run_on_filled(*arguments)
    assert result.code == 2
    assert "Usage:" in result.err
    assert not result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["traces", "--since", "1h", "--until", "2h"], "'--until': must not be before --since="),
        (["traces", "--min-cost", "-1"], "'--min-cost': must be from 0"),
        (
            ["traces", "--min-cost", "2", "--max-cost", "1"],
            "'--max-cost': must not be less than --min",
        ),
        (["traces", "--min-duration", "2s", "--max-duration", "1s"], "less than --min-duration"),
        (["traces", "--text", " "], "'--text': must not be blank"),
        (["logs", "--level", "loud"], "'--level': must be 1 to 24 or one of TRACE"),
        (["logs", "--contains", "x"], "'--since': is required where --contains is given"),
        (["logs", "--span", "a1"], "'--span': must be 16 hex digits"),
        (["logs", "--after", "x"], "'--after': is not a cursor"),
        (["sessions", "--since", "1h", "--until", "2h"], "'--until': must not be before --since="),
        (["costs", "--time-zone", "Nowhere", "--bucket", "1d"], "'--time-zone': "),
        (["costs", "--bucket", "fortnight"], "'--bucket': must be one of day, week, month"),
        (["services", "--fill", "zero"], "'--fill': needs --bucket"),
        (
            ["metrics", "requests", "--aggregation", "sum", "--until", "9d"],
            "'--until': must not be",
        ),
        (["export", "logs", "--level", "loud"], "'--level': must be"),
        (["trace", ""], "'ID': must not be empty"),
        (["traces", "service:a statis:ok"], "did you mean 'status'?\n  service:a statis:ok\n"),
        (["traces", "--status", "ok", "status:ok"], "'--status': must not be given in a FILTER"),
        (["traces", "--order", "cost"], "'--since': is required where --order is"),
        (["traces", "--lowest-first"], "--lowest-first needs --order"),
        (["logs", "level:loud"], "'[FILTER]...': min_severity must be 1 to 24"),
        (["export", "logs", "duration>2s"], "there is no field 'duration'"),
    ],
)
def test_a_value_that_is_refused_is_named_by_its_option(
    run_on_filled: Run, arguments: list[str], message: str
) -> None:
    result = run_on_filled(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"Usage: observatory-storage {arguments[0]}")
    assert message in result.err


def test_an_option_of_a_time_series_names_the_option_that_it_needs(run_on_filled: Run) -> None:
    result = run_on_filled("metrics", "requests", "--bucket", "5m")
    assert "Error: --bucket needs --aggregation" in result.err


def test_a_cursor_of_another_query_is_refused(run_on_filled: Run) -> None:
    cursor = run_on_filled("traces", "--limit", "1").err.split()[-1]
    result = run_on_filled("traces", "--status", "error", "--after", cursor)
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
    assert result.err.count("observatory-storage migrate") == 1
    assert "--log-level debug" not in result.err
    assert "Traceback" not in result.err
    debugged = run("traces", "--log-level", "debug", DATABASE_URL=empty_database_url)
    assert "Traceback" in debugged.err
    migrated = run("migrate", "--json", DATABASE_URL=empty_database_url).document
    assert migrated["before"] is None
    again = run("migrate", DATABASE_URL=empty_database_url)
    assert again.out == f"schema public is already at the newest revision, {migrated['now']}\n"
    assert run("traces", DATABASE_URL=empty_database_url).out == "none\n"
