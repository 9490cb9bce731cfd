"""`indexes`: what it builds, and what it says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.layout import advisory_key
from tests.commands import Run
from tests.repositories.samples import a_log, a_span

YESTERDAY = datetime.now(UTC) - timedelta(days=2)


def test_missing_indexes_are_built_once(run: Run, pool: StoragePool, database_url: str) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, YESTERDAY)])
    CopyWriter(pool).write_logs([a_log(1, YESTERDAY)])
    first = run("indexes", "--table", "logs", DATABASE_URL=database_url)
    assert first.code == 0, first.err
    title, *lines, summary = first.out.splitlines()
    assert title.split() == ["PARTITION", "INDEX", "DONE"]
    assert {line.split()[0] for line in lines} == {f"logs_p{YESTERDAY:%Y%m%d}"}
    assert {line.split()[-1] for line in lines} == {"built"}
    assert summary == "2 built, 0 existed already"
    result = run("indexes", "--json", DATABASE_URL=database_url).document
    assert {index["table"] for index in result["built"]} == {"trace_spans"}
    assert [index["table"] for index in result["existing"]] == ["logs", "logs"]
    assert result["failed"] == result["dropped"] == []
    again = run("indexes", DATABASE_URL=database_url)
    assert again.out.splitlines() == ["0 built, 5 existed already"]


def test_a_second_process_that_builds_indexes_is_an_error(
    run: Run, pool: StoragePool, database_url: str
) -> None:
    with pool.engine.begin() as connection:
        key = advisory_key("indexes", pool.schema)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        result = run("indexes", DATABASE_URL=database_url)
    assert result.code == 1
    assert "another process is building indexes" in result.err


def test_an_unknown_table_is_wrong_use(run: Run, database_url: str) -> None:
    assert run("indexes", "--table", "traces", DATABASE_URL=database_url).code == 2
