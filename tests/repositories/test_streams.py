"""What is read batch by batch ends with its transaction, and disturbs nobody if it is let go."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import (
    CopyWriter,
    SpanFilters,
    StorageError,
    StoragePool,
    TraceRepository,
    UnitOfWork,
)
from observatory_storage.models import TraceSpan
from tests.repositories.samples import a_span, trace_key

OF_TRACE = SpanFilters(trace_id=trace_key(1))
CURSORS = sa.text("SELECT count(*) FROM pg_cursors")
ended = pytest.raises(StorageError, match="transaction in which these rows are read has ended")


@pytest.fixture
def filled(pool: StoragePool) -> StoragePool:
    CopyWriter(pool).write_spans([a_span(1, n) for n in range(1, 101)])
    return pool


def begun(uow: UnitOfWork) -> Iterator[TraceSpan]:
    walk = uow.traces.iterate_spans(OF_TRACE, 10)
    next(walk)
    return walk


def let_go(uow: UnitOfWork) -> None:
    """Begin a walk, and leave the rest of it to the garbage collection."""
    box: list[object] = [begun(uow)]
    box.append(box)


def test_reading_on_after_the_unit_of_work_raises(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        walk = begun(uow)
    with filled.unit_of_work() as other:
        other.traces.list()
        with ended:
            list(walk)
        assert len(other.traces.list()) == 1  # it had its connection


@pytest.mark.parametrize("end", [UnitOfWork.commit, UnitOfWork.rollback])
def test_reading_on_after_the_transaction_raises(
    filled: StoragePool, end: Callable[[UnitOfWork], None]
) -> None:
    with filled.unit_of_work() as uow:
        walk = begun(uow)
        end(uow)
        with ended:
            list(walk)
        assert len(list(uow.traces.iterate_spans(OF_TRACE, 10))) == 100


def test_reading_on_after_the_transaction_of_a_session_raises(filled: StoragePool) -> None:
    with Session(filled.engine) as session:
        walk = TraceRepository(session).iterate_spans(OF_TRACE, 10)
        next(walk)
        session.commit()
        with ended:
            list(walk)
        assert len(list(TraceRepository(session).iterate_spans(OF_TRACE, 10))) == 100


@pytest.mark.parametrize("same", [True, False], ids=["same unit of work", "the next"])
def test_the_garbage_collection_may_come_while_the_connection_waits(
    filled: StoragePool, same: bool
) -> None:
    gc.disable()
    try:
        with filled.unit_of_work() as uow:
            let_go(uow)
            if same:
                collected(uow)
        with filled.unit_of_work() as uow:
            collected(uow)
    finally:
        gc.enable()


def collected(uow: UnitOfWork) -> None:
    """Have garbage collected while the driver holds the connection's lock."""
    driver = uow.session.connection().connection.driver_connection
    assert driver is not None
    found: list[int] = []

    def collect(_: object) -> None:
        found.append(gc.collect())

    driver.add_notice_handler(collect)
    uow.session.execute(sa.text("DO $$ BEGIN RAISE WARNING 'now'; END $$"))
    driver.remove_notice_handler(collect)
    assert found


def test_abandoned_iterations_leave_few_cursors(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        before = uow.session.scalar(CURSORS)
        for _ in range(5):
            next(uow.traces.iterate_spans(OF_TRACE, 10))
        assert uow.session.scalar(CURSORS) <= before + 1
        both = begun(uow), begun(uow)
        assert [len(list(walk)) for walk in both] == [99, 99]
        assert uow.session.scalar(CURSORS) == before


def test_a_failed_transaction_hides_nothing(filled: StoragePool) -> None:
    def fail() -> None:
        with filled.unit_of_work() as uow:
            begun(uow)
            uow.session.execute(sa.text("SELECT * FROM nowhere"))

    with pytest.raises(StorageError, match="nowhere"):
        fail()


def test_a_stream_in_a_rolled_back_savepoint_breaks_nothing(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        with uow.session.begin_nested() as savepoint:
            let_go(uow)
            savepoint.rollback()
        gc.collect()
        assert len(list(uow.traces.iterate_spans(OF_TRACE, 10))) == 100
        CopyWriter(uow).write_spans([a_span(2, 1)])
        uow.commit()
    with filled.unit_of_work() as uow:
        assert len(uow.traces.list()) == 2


def test_a_commit_by_the_session_spoils_nothing(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        walk = begun(uow)
        uow.session.commit()
        with ended:
            list(walk)
        CopyWriter(uow).write_spans([a_span(2, 1)])
        assert len(list(uow.traces.iterate_spans(OF_TRACE, 10))) == 100
        uow.commit()
    with filled.unit_of_work() as uow:
        assert len(uow.traces.list()) == 2
