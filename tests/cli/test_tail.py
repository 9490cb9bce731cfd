"""`tail`: rows as they are stored, until somebody interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from tests.commands import wait_for
from tests.repositories.samples import SECOND, START, a_log, a_span, trace_key


@contextmanager
def tailing(url: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`tail` with its output in the files ``out`` and ``err``."""
    command = [sys.executable, "-m", "observatory_storage", "tail", *options]
    settings = {"DATABASE_URL": url, "DB_RETRY_MAX_DELAY_MS": "200", "COLUMNS": "200"}
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **settings}, stdout=out, stderr=err
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_errors_of_a_service_are_printed_as_they_come(
    pool: StoragePool, database_url: str, tmp_path: Path
) -> None:
    def write(number: int, service: str, severity: int) -> None:
        log = a_log(number, body=f"{service} {severity}", severity_number=severity)
        CopyWriter(pool).write_logs([{**log, "service_name": service}])

    write(1, "x", 17)
    out = tmp_path / "out"
    options = ("logs", "--service", "x", "--level", "error")
    with tailing(database_url, tmp_path, *options) as process:
        wait_for(lambda: "x 17" in out.read_text(), process)
        write(2, "x", 9)
        write(3, "y", 21)
        write(4, "x", 21)
        wait_for(lambda: "x 21" in out.read_text(), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    titles, first, second = out.read_text().splitlines()
    assert titles.split()[:2] == ["TIME", "(UTC)"]
    assert (first.split()[-2:], second.split()[-2:]) == (["x", "17"], ["x", "21"])
    assert (tmp_path / "err").read_text().strip() == ""


@pytest.mark.parametrize("what", ["spans", "traces"])
def test_spans_and_traces_are_printed(
    pool: StoragePool, database_url: str, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "out"
    CopyWriter(pool).write_spans([a_span(1, 1, model="gpt", total_tokens=7, status="error")])
    with tailing(database_url, tmp_path, what, "status:error") as process:
        wait_for(lambda: trace_key(1) in out.read_text(), process)
        CopyWriter(pool).write_spans([a_span(2, 2, status="error"), a_span(3, 3)])
        wait_for(lambda: trace_key(2) in out.read_text(), process)
    assert trace_key(3) not in out.read_text()
    assert "7" in out.read_text().split()
    assert out.read_text().count("STATUS") == 1


def test_json_has_a_row_a_line(pool: StoragePool, database_url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with tailing(database_url, tmp_path, "logs", "--json") as process:
        for number in range(1, 100):
            if out.read_text():
                break
            record = a_log(number, START + number * SECOND, attributes={"k": 1})
            CopyWriter(pool).write_logs([record])
            wait_for(lambda: True, process)
        wait_for(lambda: '"attributes":{"k":1}' in out.read_text(), process)


def test_reader_that_leaves_ends_the_command_well(
    pool: StoragePool, database_url: str, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "observatory_storage", "tail", "logs"]
    environment = {**os.environ, "DATABASE_URL": database_url}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        os.close(reading)
        for number in range(1, 500):
            CopyWriter(pool).write_logs([a_log(number)])
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                continue
        process.kill()
        assert (process.returncode, process.communicate()[1]) == (0, b"")


def test_an_outage_of_the_database_is_told(
    embedded_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    config = StorageConfig(postgres=PostgresConfig.from_url(embedded_server.url))
    with StoragePool(config) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_logs([a_log(1, body="before")])
    with tailing(embedded_server.url, tmp_path, "logs") as process:
        wait_for(lambda: "before" in out.read_text(), process)
        embedded_server.stop()
        wait_for(lambda: "waiting for the database: " in err.read_text(), process)
        embedded_server.start()
        with StoragePool(config) as pool:
            CopyWriter(pool).write_logs([a_log(2, body="after")])
        wait_for(lambda: "after" in out.read_text(), process)
    assert err.read_text().splitlines()[1:] == ["the database answers again"]
    assert len(err.read_text().splitlines()) == 2
