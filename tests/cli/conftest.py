"""The command line on a database with telemetry in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    Result,
    Run,
    logs_request,
    metrics_request,
    runner,
    traces_request,
)
from tests.servers import Server


@pytest.fixture(scope="package")
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
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs commands that are given the URL of their database."""
    return runner(monkeypatch, capfd, tmp_path)


@pytest.fixture
def run_on_filled(
    filled_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs commands on the database of `filled_url`."""
    run_anywhere = runner(monkeypatch, capfd, tmp_path)

    def run(*arguments: str, **given: object) -> Result:
        return run_anywhere(*arguments, **{"DATABASE_URL": filled_url, **given})

    return run


@pytest.fixture
def ingest(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs `ingest` on a database of the test's own."""
    bare = runner(monkeypatch, capfd, tmp_path)

    def run(*arguments: str, **given: object) -> Result:
        return bare("ingest", *arguments, **{"DATABASE_URL": database_url, **given})

    return run
