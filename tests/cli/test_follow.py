"""`logs --follow`: new records as they arrive, until somebody interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from observatory_storage import CopyWriter, StoragePool
from tests.commands import Run, wait_for
from tests.repositories.samples import DAY, START, a_log


@contextmanager
def following(url: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`logs --follow` with its output in the file ``out``."""
    command = [sys.executable, "-m", "observatory_storage", "logs", "--follow", *options]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "DATABASE_URL": url},
            stdout=out,
            stderr=subprocess.PIPE,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_records_are_printed_as_they_arrive_until_ctrl_c(
    pool: StoragePool, database_url: str, tmp_path: Path
) -> None:
    CopyWriter(pool).write_logs([a_log(1, body="before", severity_number=17)])
    out = tmp_path / "out"
    with following(database_url, tmp_path, "--level", "error") as process:
        wait_for(lambda: "before" in out.read_text(), process)
        CopyWriter(pool).write_logs(
            [
                a_log(2, START.replace(year=2020), body="older and new", severity_number=17),
                a_log(3, body="harmless", severity_number=9),
            ]
        )
        wait_for(lambda: "older and new" in out.read_text(), process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert err.strip() == b""
    titles, first, second = out.read_text().splitlines()
    assert titles.startswith("TIME (UTC)")
    assert first.endswith("before")
    assert second.endswith("older and new")


def test_one_poll_prints_no_more_than_the_limit_and_none_is_lost(
    pool: StoragePool, database_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    CopyWriter(pool).write_logs([a_log(number, body=f"{number}.") for number in range(1, 6)])
    with following(database_url, tmp_path, "--limit", "2", "--json") as process:
        wait_for(lambda: out.read_text().count("\n") == 2, process)
        CopyWriter(pool).write_logs([a_log(number, body=f"{number}.") for number in range(6, 13)])
        wait_for(lambda: out.read_text().count("\n") == 9, process)


def test_following_ends_at_the_time_of_until(
    pool: StoragePool, database_url: str, tmp_path: Path
) -> None:
    CopyWriter(pool).write_logs([a_log(number, body=f"{number}.") for number in range(1, 4)])
    options = ("--limit", "2", "--until", (START + DAY).isoformat())
    with following(database_url, tmp_path, *options) as process:
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["2.", "3."]


@pytest.mark.parametrize("option", [["--after", "x"], ["--all"]])
def test_following_has_no_pages(run_on_filled: Run, option: list[str]) -> None:
    result = run_on_filled("logs", "--follow", *option)
    assert result.code == 2
    assert "--follow cannot be combined with" in result.err
