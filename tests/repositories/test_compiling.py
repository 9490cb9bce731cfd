"""Aggregates are not compiled by PostgreSQL, and other statements of the transaction may be."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from observatory_storage import CopyWriter, StorageError, StoragePool, UnitOfWork
from tests.repositories.samples import a_span

SHOW = sa.text("SELECT current_setting('jit')")
AGGREGATES: dict[str, Callable[[UnitOfWork], object]] = {
    "cost": lambda uow: uow.metrics.get_cost_summary(source="raw"),
    "percentiles": lambda uow: uow.metrics.get_latency_percentiles(source="raw"),
    "users": lambda uow: uow.metrics.get_user_usage(source="raw"),
    "active users": lambda uow: uow.metrics.get_active_users(source="raw"),
    "errors": lambda uow: uow.metrics.get_error_summary(source="raw"),
    "traces": lambda uow: uow.traces.get_stats(),
    "spans": lambda uow: uow.traces.get_stats(group_by="model"),
    "exact total": lambda uow: uow.traces.list_spans(limit=1, total="exact"),
}


def seen_by(connection: sa.Connection, ask: Callable[[], object]) -> list[str]:
    """The value of ``jit`` for each statement on the spans or traces."""
    seen = []

    def note(_: object, cursor: psycopg.Cursor, statement: str, *_rest: object) -> None:
        if "FROM public.trace" in statement.replace("\n", " "):
            row = cursor.connection.execute("SELECT current_setting('jit')").fetchone()
            seen.append(row[0] if row else "")

    event.listen(connection, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return seen


@pytest.mark.parametrize("ask", AGGREGATES.values(), ids=AGGREGATES)
@pytest.mark.parametrize("before", ["on", "off"])
def test_aggregates_are_not_compiled_and_the_setting_is_as_before(
    shared_pool: StoragePool, ask: Callable[[UnitOfWork], object], before: str
) -> None:
    CopyWriter(shared_pool).write_spans([a_span(1, 1), a_span(2, 2)])
    with shared_pool.unit_of_work() as uow:
        uow.session.execute(sa.text(f"SET LOCAL jit = {before}"))
        seen = seen_by(uow.session.connection(), lambda: ask(uow))
        assert seen
        assert "off" in seen
        assert uow.session.scalar(SHOW) == before


def test_pages_do_not_touch_the_setting(shared_pool: StoragePool) -> None:
    with shared_pool.unit_of_work() as uow:
        uow.session.execute(sa.text("SET LOCAL jit = on"))
        seen = seen_by(uow.session.connection(), uow.traces.list_spans)
        assert seen
        assert set(seen) == {"on"}


def test_setting_is_as_before_after_an_error(shared_pool: StoragePool) -> None:
    with shared_pool.unit_of_work() as uow:
        uow.session.execute(sa.text("SET LOCAL jit = on"))
        with pytest.raises(StorageError), uow.session.begin_nested():
            cause_an_error(uow)
        assert uow.session.scalar(SHOW) == "on"


def cause_an_error(uow: UnitOfWork) -> None:
    """Run an aggregate that fails on the server."""

    def fail(_: object, cursor: psycopg.Cursor, statement: str, *_rest: object) -> None:
        if "FROM public.traces" in statement.replace("\n", " "):
            cursor.connection.execute("SELECT 1 / 0")

    connection = uow.session.connection()
    event.listen(connection, "before_cursor_execute", fail)
    try:
        uow.traces.get_stats()
    except psycopg.errors.DivisionByZero as error:
        raise StorageError("the aggregate failed") from error
    finally:
        event.remove(connection, "before_cursor_execute", fail)
