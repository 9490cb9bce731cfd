"""`facts`: what it reads and changes, and where it continues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StorageError, StoragePool
from observatory_storage.models import TraceSpan
from observatory_storage.storing import facts_refresh
from tests.commands import Run
from tests.repositories.samples import a_span


@pytest.fixture(autouse=True)
def _older_spans(pool: StoragePool) -> None:
    attributes = {"gen_ai.request.model": "m"}
    start = datetime(2026, 7, 1, tzinfo=UTC)
    CopyWriter(pool).write_spans(
        [a_span(n, n, start + n * timedelta(hours=1), attributes=attributes) for n in range(1, 5)]
    )
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(model=None))


def test_facts_of_stored_spans_are_read_again(run: Run, database_url: str) -> None:
    first = run("facts", "--max-spans", "1", "--json", DATABASE_URL=database_url)
    assert first.code == 0, first.err
    next_start = first.document.pop("next_start")
    assert first.document["changed_spans"] == 1
    assert f"continue with --since {next_start}" not in first.err
    second = run("facts", "--since", next_start, "--max-spans", "1", DATABASE_URL=database_url)
    assert second.out.strip() == "1 span read, 1 changed"
    assert "continue with --since 20" in second.err
    rest = run("facts", "--since", next_start, DATABASE_URL=database_url)
    assert (rest.out.strip(), rest.err) == ("3 spans read, 2 changed", "")
    assert run("facts", DATABASE_URL=database_url).out.strip() == "4 spans read, 0 changed"
    none = run("facts", "--until", "2000-01-01", "--json", DATABASE_URL=database_url)
    assert none.document == {"spans": 0, "changed_spans": 0, "next_start": None}


@pytest.mark.parametrize(("error", "code"), [(StorageError("away"), 1), (KeyboardInterrupt(), 130)])
def test_it_says_where_to_continue(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(facts_refresh, "_SPANS_AT_A_TIME", 2)
    refresh, left = facts_refresh._refresh, [1, 0]

    def interrupted(*arguments: object) -> int:
        if not left.pop(0):
            raise error
        return refresh(*arguments)  # type: ignore[arg-type]  # as they were passed

    with monkeypatch.context() as patch:
        patch.setattr(facts_refresh, "_refresh", interrupted)
        stopped = run("facts", DATABASE_URL=database_url)
    assert stopped.code == code
    told, _, since = stopped.err.splitlines()[0].partition("; continue with --since ")
    assert told == "2 spans read, 2 changed"
    rest = run("facts", "--since", since, DATABASE_URL=database_url)
    assert rest.out.strip() == "3 spans read, 2 changed"


def test_wrong_ranges_are_wrong_use(run: Run, database_url: str) -> None:
    assert run("facts", "--max-spans", "0", DATABASE_URL=database_url).code == 2
    times = ("--since", "2026-07-02", "--until", "2026-07-01")
    result = run("facts", *times, DATABASE_URL=database_url)
    assert result.code == 2
    assert "must not be before --since=2026-07-02" in result.err
