"""`settle`: calls of several traces count once, and the command says how many traces changed."""

from __future__ import annotations

from observatory_storage import CopyWriter, StoragePool
from tests.commands import Run
from tests.repositories.samples import a_span


def test_calls_of_several_traces_are_settled(
    run: Run, pool: StoragePool, database_url: str
) -> None:
    for trace in (1, 2, 3):
        span = a_span(trace, trace, response_id="r" if trace < 3 else "s", prompt_tokens=5)
        CopyWriter(pool).write_spans([span])
    bounded = run("settle", "--max-traces", "2", "--json", DATABASE_URL=database_url)
    assert bounded.document == {"traces": 2, "changed_traces": 1}
    assert run("settle", DATABASE_URL=database_url).out.strip() == "1 settled, 0 changed"
    assert run("settle", DATABASE_URL=database_url).out.strip() == "0 settled, 0 changed"
    assert run("settle", "--max-traces", "0", DATABASE_URL=database_url).code == 2
