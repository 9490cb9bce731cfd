"""Schemas with data of the release before get weights, and views that honour them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from observatory_embedded import EmbeddedPostgres
from observatory_storage import CopyWriter, migrate
from observatory_storage.pool import StoragePool
from tests import citus
from tests.lifecycle.rolled import a_span
from tests.views.view_rows import rows_of
from tests.writers.helpers import quick_pool

DAY = datetime(2026, 3, 14, tzinfo=UTC)
VIEWS = ("observatory_traces", "observatory_spans", "observatory_span_facts", "observatory_errors")

COUNTS = (
    "SELECT sum(usage_span_count) AS spans, sum(total_tokens) AS tokens"
    " FROM {schema}.observatory_costs_by_day"
)


def insert_as_release_before(pool: StoragePool) -> None:
    """Spans as a writer of revision 0018 stores them: it does not know of weights."""
    with pool.engine.begin() as connection:
        for number in range(1, 4):
            given = {
                "id": UUID(int=number),
                "text": f"{number:032x}",
                "at": DAY + timedelta(minutes=number),
            }
            connection.exec_driver_sql(
                "INSERT INTO traces (id, trace_id, service_name, start_time, status, span_count,"
                " error_count, total_tokens, total_cost_usd, last_span_start, lead_has_parent,"
                " lead_start_time, lead_start_ns, lead_span_id, usage_span_count)"
                " VALUES (%(id)s, %(text)s, 'shop', %(at)s, 'error', 1, 1, 10, 0.01, %(at)s,"
                " false, %(at)s, 0, 'aaaaaaaaaaaaaaaa', 1)",
                given,
            )
            connection.exec_driver_sql(
                "INSERT INTO trace_spans (trace_id, span_id, name, service_name, start_time,"
                " status, total_tokens, total_cost_usd, session_id)"
                " VALUES (%(id)s, 'aaaaaaaaaaaaaaaa', 'chat', 'shop', %(at)s, 'error', 10, 0.01,"
                " 's1')",
                given,
            )


def views(pool: StoragePool) -> list[int]:
    """The rows of each view."""
    return [len(rows_of(pool, f"SELECT * FROM {{schema}}.{view}")) for view in VIEWS]


GRANTS = (
    "SELECT attrelid::regclass::text AS view, attname AS column, attacl::text AS acl"
    " FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid::regclass::text LIKE 'observatory%'"
    " UNION ALL SELECT relname, '', relacl::text FROM pg_class"
    " WHERE relname LIKE 'observatory%' AND relacl IS NOT NULL ORDER BY 1, 2"
)


def test_a_downgrade_keeps_what_roles_may_read(embedded_server: EmbeddedPostgres) -> None:
    with quick_pool(embedded_server.url) as pool:
        migrate.upgrade(pool.engine, revision="0018")
        with pool.engine.begin() as connection:
            connection.exec_driver_sql('CREATE ROLE "The Analyst"')
            for view in VIEWS:
                connection.exec_driver_sql(f'GRANT SELECT ON {view} TO "The Analyst"')
            connection.exec_driver_sql(
                'GRANT SELECT ON observatory_errors TO "The Analyst" WITH GRANT OPTION'
            )
            connection.exec_driver_sql(
                "GRANT SELECT (service_name) ON observatory_traces TO PUBLIC"
            )
        before = rows_of(pool, GRANTS)
        assert len(before) == len(VIEWS) + 1
        pool.run_migrations()
        assert rows_of(pool, GRANTS) == before
        migrate.downgrade(pool.engine, revision="0018")
        assert rows_of(pool, GRANTS) == before


@citus.not_there("there is no release before")
def test_a_populated_schema_of_the_release_before_is_upgraded(empty_database_url: str) -> None:
    with quick_pool(empty_database_url) as pool:
        migrate.upgrade(pool.engine, revision="0018")
        pool.partitions.ensure("trace_spans", [DAY])
        insert_as_release_before(pool)
        assert views(pool) == [3] * 4
        pool.run_migrations()
        assert views(pool) == [3] * 4
        weights = rows_of(pool, "SELECT DISTINCT sample_weight FROM {schema}.observatory_spans")
        assert weights == [{"sample_weight": None}]
        # A span of the same trace, sampled: the trace stands for itself alone as before.
        CopyWriter(pool).write_spans(
            [
                a_span(1, DAY, status="error", sample_weight=10),
                a_span(9, DAY, status="error", sample_weight=10),
            ]
        )
        query = "SELECT given_trace_id, sample_weight FROM {schema}.observatory_traces"
        found = {row["given_trace_id"]: row["sample_weight"] for row in rows_of(pool, query)}
        assert [found[f"{number:032x}"] for number in (1, 2, 3, 9)] == [None, None, None, 10]
        with pool.unit_of_work() as uow:
            assert uow.traces.get_stats().trace_count == 13
            assert uow.traces.get_stats().span_count == 23
            (group,) = uow.traces.get_stats(group_by="service_name")
            assert (group.span_count, group.trace_count) == (23, 13)
        (session,) = rows_of(pool, "SELECT * FROM {schema}.observatory_sessions")
        assert (session["trace_count"], session["span_count"]) == (13, 23)
        assert rows_of(pool, COUNTS) == [{"spans": 23, "tokens": 230}]
        migrate.downgrade(pool.engine, revision="0018")
        assert views(pool) == [4, 5, 5, 5]
        (session,) = rows_of(pool, "SELECT * FROM {schema}.observatory_sessions")
        assert (session["trace_count"], session["span_count"]) == (4, 5)
        assert rows_of(pool, COUNTS) == [{"spans": 5, "tokens": 50}]
        pool.run_migrations()
        assert views(pool) == [4, 5, 5, 5]
