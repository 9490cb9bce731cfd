"""Terminals of every width, pipes, and readers that leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from observatory_storage import CopyWriter, StoragePool
from tests.commands import (
    SINCE,
    TRACE,
    Run,
)
from tests.repositories.samples import a_log, a_span, trace_key


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 200])
def test_tables_keep_to_the_width(run_on_filled: Run, columns: int) -> None:
    for command in (
        ["traces"],
        ["logs"],
        ["metrics"],
        ["trace", TRACE],
        ["sessions"],
        ["services", *SINCE],
        ["costs", *SINCE],
    ):
        result = run_on_filled(*command, columns=columns)
        assert result.code == 0, result.err
        assert max(len(line) for line in result.out.splitlines()) <= columns


@pytest.mark.parametrize("columns", [15, 30, 40, 60, 80])
def test_narrow_tables_keep_the_id(run_on_filled: Run, columns: int) -> None:
    for command, id_ in (("traces", TRACE[:12]), ("logs", TRACE[:12]), ("sessions", "talk-1")):
        assert id_ in run_on_filled(command, columns=columns).out


def test_nothing_is_cut_in_a_pipe(
    run_on_filled: Run, filled_url: str, pool: StoragePool, database_url: str
) -> None:
    name, body = "operation " * 40, "words " * 400
    CopyWriter(pool).write_spans([a_span(1, 1, name=name, status="error", status_message=body)])
    CopyWriter(pool).write_logs([a_log(1, body=body)])
    for command, text in (
        (["traces"], name),
        (["trace", trace_key(1)], name),
        (["trace", trace_key(1)], body),
        (["logs"], body),
    ):
        shown = run_on_filled(*command, columns=None, DATABASE_URL=database_url).out
        assert text.strip() in shown
        assert "\u2026" not in shown
        assert max(map(len, shown.splitlines())) < 5_000


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
