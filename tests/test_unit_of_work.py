"""A unit of work is rolled back unless committed. Errors are translated, rows stay usable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import (
    Conflict,
    ConnectionLost,
    NotFound,
    StorageError,
    ValidationError,
)
from observatory_storage.models import Trace
from observatory_storage.pool import StoragePool
from observatory_storage.repositories import LogRepository, MetricRepository, TraceRepository
from observatory_storage.unit_of_work import UnitOfWork

MOMENT = datetime(2024, 5, 17, 1, 2, 3, 456789, tzinfo=UTC)


@pytest.fixture
def store(database_url: str) -> Iterator[StoragePool]:
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(database_url))) as made:
        yield made


def a_trace(number: int, **columns: object) -> Trace:
    key = UUID(int=number)
    row = {"trace_id": key.hex, "service_name": "service", "start_time": MOMENT, **columns}
    return Trace(id=key, **row)


def stored(store: StoragePool) -> list[int]:
    with store.engine.connect() as connection:
        return [key.int for key in connection.scalars(sa.select(Trace.id).order_by(Trace.id))]


def test_unit_of_work_has_a_session_repositories_and_its_pool(store: StoragePool) -> None:
    with store.unit_of_work() as uow:
        assert isinstance(uow.traces, TraceRepository)
        assert isinstance(uow.metrics, MetricRepository)
        assert isinstance(uow.logs, LogRepository)
        assert uow.source is store
        assert uow.session.autoflush is False


def test_uncommitted_changes_are_rolled_back(store: StoragePool) -> None:
    def write(*, fail: bool) -> None:
        with store.unit_of_work() as uow:
            uow.session.add(a_trace(1))
            uow.session.flush()
            if fail:
                raise KeyError

    write(fail=False)
    assert stored(store) == []
    with pytest.raises(KeyError):
        write(fail=True)
    assert stored(store) == []
    assert store.stats().active == 0


def test_committed_changes_are_stored(store: StoragePool) -> None:
    with store.unit_of_work() as uow:
        uow.session.add(a_trace(1))
        uow.commit()
        assert stored(store) == [1]
        uow.session.add(a_trace(2))
        uow.rollback()
        uow.session.add(a_trace(3))
        uow.commit()
        uow.session.add(a_trace(4))
    assert stored(store) == [1, 3]


def test_rows_stay_usable_after_the_block(store: StoragePool) -> None:
    with store.unit_of_work() as uow:
        made = a_trace(1)
        uow.session.add(made)
        uow.commit()
    assert (made.service_name, made.status, made.span_count) == ("service", "unset", 0)
    assert made.created_at.tzinfo is UTC
    with store.unit_of_work() as uow:
        read = uow.session.get_one(Trace, UUID(int=1))
        uow.rollback()
        again = uow.session.get_one(Trace, UUID(int=1))
    assert read.start_time == again.start_time == MOMENT
    assert read.attributes == {}


def add_what_a_check_refuses(uow: UnitOfWork) -> None:
    uow.session.add(a_trace(1, status="unheard of"))
    uow.session.flush()


def select_from_nowhere(uow: UnitOfWork) -> None:
    uow.session.execute(sa.text("SELECT * FROM nowhere"))


def fail_past_sqlalchemy(uow: UnitOfWork) -> None:
    connection = uow.session.connection().connection.driver_connection
    assert connection is not None
    connection.execute("SELECT 'x'::int")


def lose_the_connection(uow: UnitOfWork) -> None:
    own = uow.session.scalar(sa.text("SELECT pg_backend_pid()"))
    with uow.source.engine.begin() as other:
        other.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": own})
    uow.session.scalar(sa.text("SELECT 1"))


@pytest.mark.parametrize(
    ("work", "kind", "cause"),
    [
        (add_what_a_check_refuses, ValidationError, sa.exc.IntegrityError),
        (select_from_nowhere, StorageError, sa.exc.ProgrammingError),
        (fail_past_sqlalchemy, ValidationError, psycopg.DataError),
        (lose_the_connection, ConnectionLost, sa.exc.OperationalError),
    ],
)
def test_errors_of_the_block_are_translated(
    store: StoragePool,
    work: Callable[[UnitOfWork], None],
    kind: type[StorageError],
    cause: type[Exception],
) -> None:
    with pytest.raises(StorageError) as caught, store.unit_of_work() as uow:
        work(uow)
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, cause)
    assert store.stats().active == 0
    assert stored(store) == []


def test_errors_of_a_commit_are_translated(store: StoragePool) -> None:
    with store.unit_of_work() as uow:
        uow.session.add(a_trace(1))
        uow.commit()
    with store.unit_of_work() as uow:
        uow.session.add(a_trace(1))
        with pytest.raises(Conflict) as caught:
            uow.commit()
        assert isinstance(caught.value.__cause__, sa.exc.IntegrityError)
        uow.rollback()
        uow.session.add(a_trace(2))
        uow.commit()
    assert stored(store) == [1, 2]


def test_other_errors_pass_unchanged(store: StoragePool) -> None:
    error = NotFound("no such thing")
    with pytest.raises(NotFound) as caught, store.unit_of_work():
        raise error
    assert caught.value is error
    assert error.__cause__ is None


def test_session_is_closed_after_the_block(store: StoragePool) -> None:
    with store.unit_of_work() as uow:
        session = uow.session
    with pytest.raises(StorageError):
        uow.commit()
    with pytest.raises(sa.exc.InvalidRequestError):
        session.scalar(sa.text("SELECT 1"))


@pytest.mark.parametrize(
    "use",
    [
        lambda uow: uow.traces.list(),
        lambda uow: next(uow.traces.iterate()),
        lambda uow: next(uow.traces.iterate_spans(trace_id=UUID(int=1))),
        lambda uow: uow.traces.get_by_trace_id(UUID(int=1)),
        lambda uow: uow.traces.delete(UUID(int=1)),
        lambda uow: uow.traces.get_stats(),
        lambda uow: uow.metrics.list(),
        lambda uow: uow.logs.tail(),
        lambda uow: uow.commit(),
        lambda uow: uow.rollback(),
        lambda uow: uow.__enter__(),
        lambda uow: uow.session.execute(sa.text("SELECT 1")),
        lambda uow: uow.session.add(a_trace(1)),
    ],
)
def test_use_after_its_end_says_what_to_do(
    store: StoragePool, use: Callable[[UnitOfWork], object]
) -> None:
    with store.unit_of_work() as uow:
        pass
    with pytest.raises(StorageError, match=r"unit of work has ended.*pool\.unit_of_work"):
        use(uow)
