"""Statements keep to what tables with shards allow, also where no Citus is at hand."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from observatory_storage import models
from observatory_storage.pool import StoragePool
from observatory_storage.tables import (
    DISTRIBUTED,
    OWN_TABLES,
    REFERENCE_TABLES,
    TABLES,
)
from tests.shard_rules import Listener, violations

BROKEN = {
    "now() in DO UPDATE": "INSERT INTO public.traces (id) VALUES (%(id)s) ON CONFLICT (id)"
    " DO UPDATE SET updated_at = now()",
    "a parameter in ON CONFLICT": "INSERT INTO s.trace_spans (name) SELECT name FROM"
    " pg_temp.stage ON CONFLICT (trace_id) DO UPDATE SET name = coalesce(excluded.name, %(x)s)",
    "a volatile function": "UPDATE public.traces SET unsettled_since = clock_timestamp()",
    "a stage in NOT EXISTS": "DELETE FROM trace_events WHERE NOT (EXISTS (SELECT 1 FROM"
    " pg_temp.stage_trace_events WHERE (a = b)))",
    "a lateral join": "SELECT 1 FROM traces JOIN LATERAL (SELECT 1 FROM public.trace_spans"
    " WHERE trace_spans.trace_id = traces.id LIMIT 1) AS probe ON true",
    "a partition in a lateral join": "SELECT 1 FROM unnest(%(a)s) g, LATERAL (SELECT 1 FROM"
    ' "s"."trace_spans_p20260101" e WHERE e.trace_id = g OFFSET 0) x',
    "a recursive query": "WITH RECURSIVE n AS (SELECT min(name) FROM trace_spans) SELECT 1 FROM n",
    "a stable function in CASE": "UPDATE public.trace_spans SET otlp=CASE WHEN n.a THEN"
    " jsonb_build_object('a', NULL) ELSE otlp END FROM unnest(%(a)s) AS n WHERE a = b",
    "rows of all shards that are locked": "SELECT public.logs.id FROM public.logs"
    " WHERE public.logs.trace_id = ANY (%(ids)s::UUID[]) ORDER BY public.logs.id FOR UPDATE",
    "rows that are locked by a join": "SELECT f.data FROM payload_frames f JOIN unnest(%(a)s)"
    " AS given (trace_id) ON f.trace_id = given.trace_id FOR UPDATE OF f",
    "a changing function in RETURNING": "WITH gone AS (DELETE FROM logs WHERE a RETURNING"
    " date_trunc('hour', logs.timestamp, 'UTC')) SELECT 1 FROM gone",
}


@pytest.mark.parametrize("statement", BROKEN.values(), ids=BROKEN)
def test_a_statement_that_breaks_a_rule_is_noticed(statement: str) -> None:
    assert violations(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO public.traces (id) VALUES (%(id)s) ON CONFLICT (id)"
        " DO UPDATE SET updated_at = excluded.updated_at RETURNING traces.id",
        "INSERT INTO public.model_pricing (id) VALUES (%(id)s) ON CONFLICT (id)"
        " DO UPDATE SET loaded_at = now()",
        "SELECT traces.id FROM traces WHERE traces.id = any(%(ids)s::UUID[]) FOR NO KEY UPDATE",
        "SELECT metrics.id FROM metrics ORDER BY metrics.id FOR UPDATE",
        "SELECT 1 FROM traces WHERE EXISTS (SELECT 1 FROM trace_spans OFFSET '0')",
        "SELECT 1 FROM span_rollups_hour CROSS JOIN LATERAL (SELECT 1 LIMIT 1) AS a",
    ],
)
def test_what_the_shards_allow_is_not_reported(statement: str) -> None:
    assert violations(statement) == []


def test_the_statements_of_all_tests_are_checked(
    pool: StoragePool, shard_rules_listener: Listener
) -> None:
    with pool.engine.begin() as connection:
        connection.execute(
            sa.update(models.Trace).values(unsettled_since=sa.func.clock_timestamp())
        )
    ((statement, broken),) = shard_rules_listener.broken.items()
    shard_rules_listener.broken.clear()
    assert "clock_timestamp" in statement
    assert broken == ["a volatile function changes a table with shards"]


def test_each_distributed_table_is_unique_by_its_column() -> None:
    names = {table.name for table in DISTRIBUTED}
    assert names | {*REFERENCE_TABLES} >= TABLES.keys()
    assert REFERENCE_TABLES[1] in OWN_TABLES
    for table in DISTRIBUTED:
        assert table.distributed_by in table.key
        assert table.beside is None or table.beside in names
        for constraint in table.table.constraints:
            if isinstance(constraint, (sa.UniqueConstraint, sa.PrimaryKeyConstraint)):
                assert table.distributed_by in constraint.columns
