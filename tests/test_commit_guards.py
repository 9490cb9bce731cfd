from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, TraceSpan
from observatory_storage.commits import Commit
from tests.repositories.samples import START, a_span


class Guard:
    """Keeps when it is called, and how many spans others see then."""

    def __init__(self, pool: StoragePool) -> None:
        self.pool = pool
        self.calls: list[tuple[str, int]] = []
        self.commits: list[Commit] = []
        self.fails = False

    def before_commit(
        self, connection: sa.Connection, commits: Sequence[Commit]
    ) -> Callable[[], None]:
        if self.fails:
            raise RuntimeError("the guard is asleep")
        assert connection.in_transaction()
        self.commits += commits
        self._note("before")
        return lambda: self._note("after")

    def _note(self, when: str) -> None:
        with self.pool.engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(TraceSpan)
            self.calls.append((when, connection.scalar(count) or 0))


@pytest.fixture
def guard(pool: StoragePool) -> Guard:
    guard = Guard(pool)
    pool.commits.add_guard(guard)
    return guard


@pytest.mark.parametrize("count", [1, 2_000])
def test_guard_is_called_before_and_after_a_commit(
    pool: StoragePool, guard: Guard, count: int
) -> None:
    CopyWriter(pool).write_spans([a_span(1, number) for number in range(1, count + 1)])
    assert guard.calls == [("before", 0), ("after", count)]


def test_guard_is_called_once_for_all_that_a_session_commits(
    pool: StoragePool, guard: Guard
) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(1, 1)])
        with uow.session.begin_nested():
            CopyWriter(uow).write_spans([a_span(1, 2)])
        assert guard.calls == []
        uow.commit()
        uow.commit()
    assert guard.calls == [("before", 0), ("after", 2)]
    assert [len(commit.rows) for commit in guard.commits] == [1, 1]


def test_guard_hears_of_changed_entities(pool: StoragePool, guard: Guard) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    guard.commits.clear()
    with pool.unit_of_work() as uow:
        span = uow.traces.get_spans(f"{1:032x}")[0]
        span.name = "changed"
        uow.session.commit()
    (commit,) = guard.commits
    assert commit.changes == [("trace_spans", START, START, ())]


def test_guard_is_not_called_after_a_commit_that_failed(pool: StoragePool, guard: Guard) -> None:
    with pool.engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'not today'; END $$"
            )
        )
        connection.execute(
            sa.text(
                "CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON traces"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    with pytest.raises(Exception, match="not today"):
        CopyWriter(pool).write_spans([a_span(1, 1)])
    assert [when for when, _ in guard.calls] == ["before"] * len(guard.calls)
    guard.calls.clear()
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(1, 1)])
        with pytest.raises(Exception, match="not today"):
            uow.commit()
    assert guard.calls == [("before", 0)]


def test_a_guard_that_fails_costs_no_row(
    pool: StoragePool, guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    guard.fails = True
    CopyWriter(pool).write_spans([a_span(1, 1)])
    guard.fails = False
    CopyWriter(pool).write_spans([a_span(1, 2)])
    assert guard.calls == [("before", 1), ("after", 2)]
    assert "a guard failed before a commit" in caplog.text
