"""The commands that read, on the primary and with ``--replica`` on the standby."""

from __future__ import annotations

from pathlib import Path

import pytest

from observatory_storage import CopyWriter, StoragePool
from tests.commands import Run, runner
from tests.replication.pairs import Database
from tests.repositories.samples import a_log, a_span, trace_key


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capfd, tmp_path)


def test_a_command_reads_from_the_replica_only_if_it_is_told(
    run: Run, database: Database, pool: StoragePool
) -> None:
    urls = {"DATABASE_URL": database.url, "DATABASE_READ_URL": database.read_url}
    with database.pair.paused():
        CopyWriter(pool).write_spans([a_span(1, 1)])
        CopyWriter(pool).write_logs([a_log(1, body="a record")])
        for command in (["traces"], ["services"], ["logs"], ["export", "traces"]):
            result = run(*command, **urls)
            assert result.code == 0, result.err
            assert "service" in result.out  # the name of the service
            result = run(*command, "--replica", **urls)
            assert result.code == 0, result.err
            assert "service" not in result.out
        result = run("trace", trace_key(1), "--replica", **urls)
        assert result.code == 1
        assert "the standby that was asked has replayed" in result.err


def test_nothing_is_followed_on_a_replica(run: Run, database: Database) -> None:
    result = run("logs", "--follow", "--replica", DATABASE_URL=database.url)
    assert result.code == 2
    assert "it cannot be combined with --replica" in result.err
    assert run("tail", "logs", "--replica", DATABASE_URL=database.url).code == 2
