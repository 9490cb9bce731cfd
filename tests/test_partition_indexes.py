"""Building the indexes of closed partitions, also when builds fail or are interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from observatory_storage import (
    CopyWriter,
    IndexBuild,
    PoolConfig,
    PostgresConfig,
    SpanFilters,
    StorageConfig,
    StoragePool,
    ValidationError,
    build_partition_indexes,
    index_builder,
    migrate,
)
from observatory_storage.index_kinds import CLOSED, IndexKind
from observatory_storage.models import Base
from tests.catalog import engine_for
from tests.repositories.samples import DAY, a_log, a_span, an_event
from tests.two_days import EVENTS, LOGS, NOW, SPANS, START, TODAY, build, indexes


@contextmanager
def autocommit(pool: StoragePool) -> Iterator[sa.Connection]:
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def test_only_closed_partitions_get_indexes_and_once(two_days: StoragePool) -> None:
    first = build(two_days)
    assert {(index.table, index.partition) for index in first.built} == {
        ("trace_spans", SPANS),
        ("trace_events", EVENTS),
        ("logs", LOGS),
    }
    assert len(first.built) == len(CLOSED)
    assert first == IndexBuild(built=first.built)
    assert indexes(two_days.engine) == {index.name: True for index in first.built}
    assert all(len(index.name.encode()) <= 63 for index in first.built)
    second = build(two_days)
    assert second == IndexBuild(existing=first.built)
    later = build(two_days, now=NOW + DAY)
    assert set(later.existing) == set(first.built)
    assert len(later.built) == len(CLOSED)
    # The newest day is queried most.
    assert later.built[0].partition == f"trace_spans_p{TODAY + DAY:%Y%m%d}"


@pytest.mark.parametrize(
    ("given", "closed"),
    [
        ({"now": TODAY + DAY + timedelta(hours=1)}, True),
        ({"now": TODAY + DAY + timedelta(minutes=59)}, False),
        ({"now": TODAY + DAY, "grace": timedelta(0)}, True),
        ({"now": TODAY + DAY - timedelta(microseconds=1), "grace": timedelta(0)}, False),
    ],
)
def test_a_partition_is_closed_some_time_after_its_end(
    two_days: StoragePool, given: dict[str, Any], *, closed: bool
) -> None:
    assert bool(build(two_days, **given).built) == closed


def test_one_table_alone(two_days: StoragePool) -> None:
    assert {index.table for index in build(two_days, table="logs").built} == {"logs"}


def test_default_time_is_that_of_the_clock(pool: StoragePool) -> None:
    today = datetime.now(UTC)
    starts = [START, today, datetime(1980, 1, 1, tzinfo=UTC)]
    CopyWriter(pool).write_spans([a_span(n, n, start) for n, start in enumerate(starts, 1)])
    built = build_partition_indexes(pool, table="trace_spans").built
    assert "trace_spans_past" in {index.partition for index in built}
    assert f"trace_spans_p{today:%Y%m%d}" not in {index.partition for index in built}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"table": "traces"}, "table"),
        ({"table": "metric_data_points"}, "table"),
        ({"now": datetime(2026, 1, 1)}, "now"),  # noqa: DTZ001 - what is refused
        ({"now": "2026-01-01"}, "now"),
        ({"grace": 3600}, "grace"),
        ({"grace": timedelta(-1)}, "grace"),
        ({"grace": timedelta.max}, "grace"),
    ],
)
def test_invalid_arguments_are_refused(
    pool: StoragePool, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        build(pool, **given)
    assert refused.value.field == field


@pytest.mark.parametrize("schema", ["public", 'Obs: "50%"'])
def test_migrations_do_not_see_the_indexes(empty_database_url: str, schema: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(empty_database_url).model_copy(
            update={"schema_name": schema}
        )
    )
    with StoragePool(config) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_spans([a_span(1, 1, START, events=[an_event()])])
        CopyWriter(pool).write_logs([a_log(1, START)])
        built = build(pool).built
        assert indexes(pool.engine, schema) == {index.name: True for index in built}
        assert len(built) == len(CLOSED)
        assert not build(pool).built
    engine = engine_for(empty_database_url)
    with engine.connect() as connection:
        options = migrate.comparison(connection, schema)
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    migrate.downgrade(engine, schema)
    engine.dispose()


def test_invalid_index_of_an_interrupted_build_is_rebuilt(two_days: StoragePool) -> None:
    name = next(i.name for i in build(two_days).built if i.partition == SPANS)
    CopyWriter(two_days).write_spans([a_span(n, n, START) for n in range(3, 5)])
    with autocommit(two_days) as connection:
        connection.exec_driver_sql(f"DROP INDEX {name}")
        # The values are not unique, so the build fails at its end and leaves an invalid index.
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql(
                f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {SPANS} (service_name)"
            )
    assert indexes(two_days.engine)[name] is False
    again = build(two_days)
    assert [index.name for index in again.built] == [name]
    assert [index.name for index in again.dropped] == [name]
    assert all(indexes(two_days.engine).values())


def test_changed_definition_replaces_the_older_index(
    two_days: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(two_days, table="trace_events").built
    (content,) = (
        kind for kind in CLOSED if (kind.table, kind.purpose) == ("trace_events", "content")
    )
    changed = IndexKind("trace_events", "content", lambda c: [c.otlp])
    monkeypatch.setattr(
        index_builder, "CLOSED", [changed if kind is content else kind for kind in CLOSED]
    )
    after = build(two_days, table="trace_events")
    assert len(after.built) == len(after.dropped) == 1
    assert after.dropped[0] in before
    assert after.built[0].name != after.dropped[0].name
    assert set(indexes(two_days.engine)) == {i.name for i in (*after.built, *after.existing)}
    # Indexes of users on a partition are not dropped.
    with two_days.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE INDEX ix_{EVENTS}_mine ON {EVENTS} (name)")
    assert not build(two_days, table="trace_events").dropped
    assert f"ix_{EVENTS}_mine" in indexes(two_days.engine)


def test_settings_of_the_build_do_not_stay_in_the_pool(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(min_connections=1, max_connections=2),
    )
    with StoragePool(config) as pool:
        build(pool)
        with pool.engine.connect() as one, pool.engine.connect() as other:
            for connection in (one, other):
                assert connection.scalar(sa.text("SHOW lock_timeout")) == "0"
                assert connection.get_isolation_level() == "READ COMMITTED"


def test_late_rows_are_indexed_too(two_days: StoragePool) -> None:
    build(two_days)
    awkward = [
        "\\",
        "\\u00",
        "\\ud800 \\udc00 \\uD83D\\uDE00 \\u0000",
        "\\\\u00e9 \\U0001F600 \\+01F600 \\123",
        "\x01\x02\r\n\t\x7f\ufffe",
        "x" * 3_000_000,
        " ".join(f"w{n}-{n}.example.com/a{n}" for n in range(60_000)),
        "\U00020000" * 200_000,
        "\\u4e00" * 200_000,
    ]
    rows = [
        a_span(
            10 + n,
            10 + n,
            START,
            attributes={"gen_ai.prompt": text, "output.value": [{"x": text}, 1, None, 1e300]},
            events=[an_event(**{"gen_ai.completion": text})],
        )
        for n, text in enumerate(awkward)
    ]
    rows += [a_span(99, 99, START, attributes={"llm.prompts": {"0": "late"}, "tenant": 7})]
    CopyWriter(two_days).write_spans(rows)
    with two_days.unit_of_work() as uow:
        assert [s.span_id for s in uow.traces.search_text("late")] == [f"{99:016x}"]
        assert len(uow.traces.list_spans(SpanFilters(attributes={"tenant": 7}))) == 1
    with two_days.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE trace_spans, trace_events")
    # Values that an index accepts row by row must not make its build fail.
    CopyWriter(two_days).write_spans(rows)
    result = build(two_days, now=NOW + 7 * DAY)
    assert not result.failed


def test_partitions_older_than_a_migration_get_the_indexes_of_their_table(
    two_days: StoragePool,
) -> None:
    rows = [a_log(n + 5, START + n * DAY, body=f"at https://example.com/{n}.html") for n in (0, 1)]
    migrate.downgrade(two_days.engine, revision="0001")
    CopyWriter(two_days).write_logs(rows)
    migrate.upgrade(two_days.engine)
    CopyWriter(two_days).write_logs([a_log(9, START + 2 * DAY)])  # into a partition that has them
    with two_days.unit_of_work() as uow:
        assert len(uow.logs.list(text="https://example.com/1.html")) == 1
    built = build(two_days, table="logs").built
    changed = [index for index in built if index.name.split("_")[3] in ("body", "errors")]
    assert len(changed) == 4
    attached = (
        "SELECT count(*) FROM pg_inherits WHERE inhparent = ANY (ARRAY"
        "['ix_logs_body'::regclass, 'ix_logs_errors'::regclass])"
    )
    valid = "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'logs'::regclass"
    with two_days.engine.connect() as connection:
        assert connection.scalar(sa.text(attached)) == 6
        assert connection.scalar(sa.text(valid))
    assert not build(two_days, table="logs").built
