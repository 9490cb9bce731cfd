"""The SQL of docs/sql-views.md makes roles that read what the page says, and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import LogWriter, NotFound, StorageError, StoragePool, UnitOfWork, migrate
from observatory_storage.models import Base
from tests import citus
from tests.lifecycle.rolled import LATER, refresh
from tests.payloads.framed import START, turns, write
from tests.repositories.hot_questions import HOT
from tests.servers import FAST
from tests.views.view_rows import FACTS_ROLE, PREVIEW_VIEWS, READER_ROLE, VIEW_NAMES
from tests.writers.helpers import a_log, quick_pool, trace_id

_DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, since roles belong to a server; migrated, with both roles."""
    if citus.URL:
        pytest.skip("a server without Citus")
    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        with quick_pool(server.url) as pool:
            pool.run_migrations()
            write(pool, *turns([1], 2))
            with psycopg.connect(server.url) as connection:
                connection.execute(READER_ROLE.encode())
                connection.execute(FACTS_ROLE.encode())
            # In partitions that the roles have been granted nothing on.
            write(pool, *turns([2], 2, START - 40 * _DAY))
            refresh(pool, LATER)
            with LogWriter(pool) as logs:
                logs.write_log(a_log())
        yield server


@pytest.fixture
def connect(server: EmbeddedPostgres) -> Callable[[str], psycopg.Connection[Any]]:
    def connect(role: str) -> psycopg.Connection[Any]:
        return psycopg.connect(server.url, user=role, autocommit=True)

    return connect


Connect = Callable[[str], psycopg.Connection[Any]]


def test_the_reader_reads_every_view_and_table(connect: Connect) -> None:
    with connect("observatory_reader") as connection:
        for name in (*VIEW_NAMES, *PREVIEW_VIEWS, *Base.metadata.tables, "observatory_version"):
            connection.execute(f"SELECT * FROM {name}".encode()).fetchall()
        rows = connection.execute("SELECT count(*) FROM observatory_spans").fetchone()
        assert rows == (4,), "those of later partitions too"


def test_the_reader_changes_nothing(connect: Connect) -> None:
    with connect("observatory_reader") as connection:
        connection.execute("SET default_transaction_read_only = off")
        statements = ["CREATE TABLE mine (id int)", "DROP VIEW observatory_spans"]
        for name in Base.metadata.tables:
            statements += [f"DELETE FROM {name}", f"TRUNCATE {name}"]
            statements.append(f"INSERT INTO {name} DEFAULT VALUES")
        for view in VIEW_NAMES:
            statements.append(f"GRANT SELECT ON {view} TO PUBLIC")
        for statement in statements:
            try:
                connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            assert statement.startswith("GRANT"), statement  # which grants nothing, with a warning
        for view in VIEW_NAMES:
            public = connection.execute(
                "SELECT count(*) FROM information_schema.role_table_grants"
                " WHERE table_name = %s AND grantee = 'PUBLIC'",
                [view],
            ).fetchone()
            assert public == (0,)


def test_the_reader_uses_the_repositories(server: EmbeddedPostgres) -> None:
    questions: list[Callable[[UnitOfWork], Any]] = [
        *(hot.ask for hot in HOT),
        lambda uow: uow.traces.list_spans(text="river"),
        lambda uow: uow.traces.get_spans(trace_id(1), with_events=True),
        lambda uow: uow.traces.list_sessions(),
        lambda uow: uow.traces.get_stats(),
        lambda uow: uow.traces.services(),
        lambda uow: uow.traces.pinned(),
        lambda uow: uow.logs.tail(None),
        lambda uow: uow.logs.count_by_level(),
        lambda uow: uow.metrics.list(),
        lambda uow: uow.metrics.get_cost_summary(bucket_size_secs="day"),
        lambda uow: uow.metrics.get_latency_percentiles(),
        lambda uow: uow.metrics.get_user_usage(),
        lambda uow: uow.metrics.get_error_summary(),
        lambda uow: uow.metrics.get_unpriced_models(),
    ]
    with quick_pool(server.url, username="observatory_reader") as pool:
        assert role_of(pool) == "observatory_reader"
        answered = 0
        for ask in questions:
            with pool.unit_of_work() as uow:
                try:
                    ask(uow)
                except NotFound:  # of the questions about another database
                    continue
                answered += 1
        assert answered > len(questions) / 2
        with pool.unit_of_work() as uow:
            (span, _) = uow.traces.get_spans(trace_id(1))
            assert isinstance(span.attributes["gen_ai.input.messages"], list)
        with pytest.raises(StorageError):
            write(pool, *turns([3], 1))


def role_of(pool: StoragePool) -> str:
    with pool.engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT current_user").scalar_one())


def test_the_role_for_facts_reads_no_texts(connect: Connect) -> None:
    granted = ("observatory_span_facts", "observatory_sessions", "observatory_costs_by_day")
    with connect("observatory_facts") as connection:
        connection.execute("SET default_transaction_read_only = off")
        for view in granted:
            assert connection.execute(f"SELECT * FROM {view}".encode()).fetchall(), view
        refused = [f"SELECT * FROM {view}" for view in VIEW_NAMES if view not in granted]
        refused += [
            "SELECT attributes FROM trace_spans",
            "SELECT status_message FROM trace_spans",
            "SELECT * FROM payload_frames",
            "SELECT preview FROM payload_previews",
            "DELETE FROM trace_spans",
        ]
        for statement in refused:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_a_migration_lets_readers_of_spans_read_new_views(
    embedded_server: EmbeddedPostgres,
) -> None:
    with quick_pool(embedded_server.url) as pool:
        migrate.upgrade(pool.engine, revision="0015")
        with psycopg.connect(embedded_server.url) as connection:
            connection.execute("CREATE ROLE observatory_reader LOGIN")
            tables = ", ".join(Base.metadata.tables.keys() - {"log_frames"})
            connection.execute(f"GRANT SELECT ON {tables} TO observatory_reader".encode())
            connection.execute("CREATE ROLE observatory_facts LOGIN")
            columns = FACTS_ROLE.partition("GRANT SELECT (")[2].partition("TO observatory_facts;")[
                0
            ]
            former = columns.replace("sample_weight,", "")
            connection.execute(f"GRANT SELECT ({former} TO observatory_facts".encode())
        pool.run_migrations()
        write(pool, *turns([1], 2))
        with psycopg.connect(embedded_server.url, user="observatory_reader") as connection:
            for name in (*VIEW_NAMES, "log_payload_previews", "log_frames"):
                connection.execute(f"SELECT * FROM {name}".encode())
            rows = connection.execute("SELECT count(*) FROM observatory_spans").fetchone()
        assert rows == (2,)
        with psycopg.connect(embedded_server.url, user="observatory_facts") as connection:
            weights = connection.execute("SELECT sample_weight FROM trace_spans").fetchall()
        assert weights == [(None,), (None,)]
        migrate.downgrade(pool.engine, revision="0015")
        with psycopg.connect(embedded_server.url) as connection:
            left = connection.execute(
                "SELECT count(*) FROM pg_views WHERE viewname LIKE 'observatory%'"
            ).fetchone()
            spans = connection.execute("SELECT count(*) FROM trace_spans").fetchone()
        assert (left, spans) == ((0,), (2,))
