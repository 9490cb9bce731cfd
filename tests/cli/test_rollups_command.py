"""`rollups`: rollups are brought up to date, or computed again."""

from __future__ import annotations

from observatory_storage import CopyWriter, StoragePool
from tests.commands import Run
from tests.repositories.samples import a_span


def test_rollups_are_refreshed_and_rebuilt(run: Run, pool: StoragePool, database_url: str) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, total_tokens=5)])
    refreshed = run("rollups", DATABASE_URL=database_url)
    assert refreshed.out.strip() == "1 minute, 1 hour, 1 day computed"
    again = run("rollups", "--json", DATABASE_URL=database_url)
    assert again.document == {"minutes": 0, "hours": 0, "days": 0, "is_complete": True}
    rebuilt = run("rollups", "--rebuild", "--since", "2020-01-01", DATABASE_URL=database_url)
    assert rebuilt.out.strip() == "1 minute, 1 hour, 1 day computed"
    refused = run("rollups", "--since", "2020-01-01", DATABASE_URL=database_url)
    assert refused.code == 2
    assert "--since and --until need --rebuild" in refused.err
