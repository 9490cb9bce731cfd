"""A part of a refresh reads the partitions of its own days, by indexes."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, UnitOfWork
from observatory_storage.models import TraceSpan
from observatory_storage.storing import facts_refresh
from observatory_storage.storing.fact_changes import SpanKey, changes_of
from observatory_storage.storing.span_walk import SpanWalk
from tests import citus
from tests.repositories.plans import plans_of
from tests.repositories.samples import DAY, a_span, an_event

# Of late, for partitions of a day.
BEGIN = (datetime.now(UTC) - 10 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
SPANS = 1000


@pytest.fixture
def older(pool: StoragePool) -> StoragePool:
    """Spans of five days, whose model is not read yet."""
    attributes = {"gen_ai.request.model": "m", "text": "x" * 500}
    rows = [
        a_span(n, n, BEGIN + n * DAY / SPANS, attributes=attributes, events=[an_event()])
        for n in range(1, 5 * SPANS)
    ]
    CopyWriter(pool).write_spans(rows)
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(model=None))
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return pool


@citus.not_there("plans are those of shards")
def test_a_part_is_read_by_indexes(older: StoragePool) -> None:
    partition = {f"trace_spans_p{BEGIN + 2 * DAY:%Y%m%d}"}

    def read(uow: UnitOfWork) -> None:
        connection = uow.session.connection()
        walk = SpanWalk(facts_refresh._SELECT, None, None, page_size=100, max_spans=None)
        walk.passed([SpanKey(BEGIN + 2 * DAY, 0, UUID(int=1), "0" * 16)])
        rows = connection.execute(walk.page()).all()
        keys = [SpanKey(*row[:4]) for row in rows]
        assert len(list(changes_of(connection, keys))) == 100

    plans = [plan for plan in plans_of(older, read) if plan.relations("trace_spans")]
    assert len(plans) == 2
    for plan in plans:
        assert plan.relations("trace_spans") == partition, plan.text
        assert "ix_trace_spans_start_time" in plan.indexes, plan.text
        assert not plan.read_whole & partition, plan.text
        assert plan.rows <= 300, plan.text
