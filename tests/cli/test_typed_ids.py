"""Ids that are typed by their beginning."""

from __future__ import annotations

import pytest

from observatory_storage import CopyWriter, StoragePool
from tests.commands import (
    OTHER_TRACE,
    TRACE,
    Run,
)
from tests.repositories.samples import a_log


def test_short_ids_of_a_narrow_table_lead_to_the_trace(run_on_filled: Run) -> None:
    line = run_on_filled("traces", "--service", "assistant", columns=80).out.splitlines()[1]
    short = line.split()[2]
    assert len(short) == 12
    assert "POST /ask" in line
    assert run_on_filled("trace", short.upper()).out.splitlines()[0].endswith(TRACE)


@pytest.mark.parametrize(
    ("trace_id", "message"),
    [
        ("5b8e", f"several traces begin with 5b8e: {TRACE}, {OTHER_TRACE}"),
        ("5b8f", "there is no trace 5b8f"),
        ("%", "there is no trace %"),
    ],
)
def test_trace_that_is_not_found(run_on_filled: Run, trace_id: str, message: str) -> None:
    result = run_on_filled("trace", trace_id)
    assert result.code == 1
    assert f"error: {message}" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logs", "--trace", "5b8e"], f"several traces begin with 5b8e: {TRACE}, {OTHER_TRACE}"),
        (["logs", "--trace", "5b8f"], "there is no trace 5b8f"),
        (["export", "logs", "--trace", "5b8e"], "several traces begin with 5b8e: "),
        (["logs", "--trace", TRACE[:8], "--span", "0"], "several spans begin with 0: 0000"),
        (["logs", "--trace", TRACE[:8], "--span", "b"], "there is no span b in the trace"),
        (["traces", "--session", "talk"], "several sessions begin with talk: talk-1, talk-2"),
        (["export", "traces", "--session", "t"], "several sessions begin with t: talk-1, talk-2"),
    ],
)
def test_the_beginning_of_an_id_that_does_not_lead_to_one(
    run_on_filled: Run, arguments: list[str], message: str
) -> None:
    result = run_on_filled(*arguments)
    assert (result.code, result.out) == (1, "")
    assert f"error: {message}" in result.err


def test_log_records_of_a_trace_that_is_not_stored(
    run_on_filled: Run, pool: StoragePool, database_url: str
) -> None:
    CopyWriter(pool).write_logs([a_log(1, body="x", trace_id="job 7")])
    found = run_on_filled("logs", "--trace", "job 7", "--json", DATABASE_URL=database_url)
    assert [line["body"] for line in found.lines] == ["x"]
