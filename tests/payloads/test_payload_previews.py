"""SQL sees keys, previews and digests of moved values in the view `payload_previews`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.pool import NullPool

from observatory_embedded import EmbeddedPostgres
from observatory_storage import jsonb, migrate
from observatory_storage.config import PayloadMode
from observatory_storage.errors import MigrationError
from observatory_storage.payloads import digest_of, preview_of
from observatory_storage.pool import StoragePool
from observatory_storage.schema_state import quoted_name
from tests import citus
from tests.catalog import engine_for
from tests.payloads.framed import START, a_text, a_turn, turns, write
from tests.writers.helpers import quick_pool, span_id

DAY = timedelta(days=1)
ODD = 'Obs: "50%"'


@pytest.fixture(params=["public", ODD])
def pool(request: pytest.FixtureRequest, empty_database_url: str) -> Iterator[StoragePool]:
    with quick_pool(empty_database_url, schema=request.param) as pool:
        pool.run_migrations()
        yield pool


def previews_of(pool: StoragePool) -> sa.Table:
    """The view, as docs/your-own-queries.md reads it."""
    return sa.Table(
        "payload_previews", sa.MetaData(), schema=pool.schema, autoload_with=pool.engine
    )


def test_each_moved_attribute_has_a_row(pool: StoragePool) -> None:
    write(pool, *turns([1], 2))
    write(pool, *turns([2], 2), payloads="inline")
    view = previews_of(pool)
    assert view.c.keys() == [
        *("trace_id", "span_id", "start_time", "position"),
        *("key", "preview", "digest", "payload_frame"),
    ]
    with pool.engine.connect() as connection:
        rows = connection.execute(sa.select(view)).all()
    with pool.unit_of_work() as uow:
        spans = [uow.traces.get_span("1".zfill(32), span_id(n), with_events=True) for n in (1, 2)]
    expected = set()
    for span in spans:
        of_span = {key: span.attributes[key] for key in span.attributes if key != "small"}
        for position, moved in ((None, of_span), (0, span.events[0].attributes)):
            for key, value in moved.items():
                text = jsonb.encode(value)[0][1:]
                place = (span.trace_id, span.span_id, span.start_time, position)
                expected.add((*place, key, preview_of(text), digest_of(text)))
    assert {tuple(row)[:-1] for row in rows} == expected
    assert len(rows) == 6
    assert all(row.payload_frame is not None for row in rows)


def test_a_value_that_was_set_since_is_shown_instead(pool: StoragePool) -> None:
    write(pool, *turns([1], 1))
    with pool.engine.begin() as connection:
        changed = sa.text(
            f"UPDATE {quoted_name(pool.schema)}.trace_spans"
            """ SET attributes = attributes || '{"gen_ai.input.messages": [1.10]}'"""
        )
        connection.execute(changed)
        view = previews_of(pool)
        shown = sa.select(view.c.preview).where(view.c.key == "gen_ai.input.messages")
        assert connection.scalars(shown).all() == ["[1.10]"]


def scans(node: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The partitions that a plan reads, with the index that it uses."""
    if "Relation Name" in node or "Index Name" in node:
        yield node.get("Relation Name", ""), node.get("Index Name")
    for child in node.get("Plans", ()):
        yield from scans(child)


@citus.not_there("shards have plans of their own")
def test_conditions_prune_partitions_and_use_the_index_of_traces(pool: StoragePool) -> None:
    for day in range(3):
        write(pool, *turns(range(1, 40), 1, START - day * DAY))
    view = previews_of(pool)
    of_one = sa.select(view).where(
        view.c.start_time >= START, view.c.trace_id == sa.text("'" + "7".zfill(32) + "'::uuid")
    )
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        statement = of_one.compile(connection, compile_kwargs={"literal_binds": True})
        (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}").scalars()
    read = list(scans((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))
    suffix = f"{START:%Y%m%d}"
    tables = {f"{table}_p{suffix}" for table in ("trace_spans", "trace_events")}
    assert {table for table, _ in read if table} == tables
    assert all(index and index.startswith(("trace_", "pk_trace_")) for _, index in read)


def test_the_view_gives_nobody_the_rows_of_others(embedded_server: EmbeddedPostgres) -> None:
    url = embedded_server.url
    with quick_pool(url) as pool:
        migrate.upgrade(pool.engine, revision="0014")
        with pool.engine.begin() as connection:
            for role in ("reader", "stranger"):
                connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
            connection.exec_driver_sql("GRANT SELECT, UPDATE ON trace_spans TO reader")
            connection.exec_driver_sql("GRANT SELECT ON trace_events TO reader")
        pool.run_migrations()
        write(pool, *turns([1], 1))
        count = sa.text("SELECT count(*) FROM payload_previews")
        told: dict[str, Any] = {}
        with pool.engine.begin() as connection:
            granted = connection.execute(
                sa.text(
                    "SELECT grantee, privilege_type FROM information_schema.role_table_grants"
                    " WHERE table_name = 'payload_previews' AND grantee <> grantor"
                )
            ).all()
            assert [tuple(row) for row in granted] == [("reader", "SELECT")]
            connection.exec_driver_sql("GRANT SELECT ON payload_previews TO stranger")
        for role in ("reader", "stranger"):
            engine = sa.create_engine(pool.engine.url.set(username=role), poolclass=NullPool)
            with engine.connect() as connection:
                try:
                    told[role] = connection.scalar(count)
                except sa.exc.ProgrammingError as error:
                    told[role] = str(error.orig)
    assert told["reader"] == 3
    assert "permission denied for table trace_spans" in told["stranger"]


def test_a_schema_without_the_view_is_named(empty_database_url: str) -> None:
    engine = engine_for(empty_database_url)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP VIEW payload_previews")
    with pytest.raises(MigrationError, match="lacks payload_previews"):
        migrate.upgrade(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("condition", "framed", "inline"),
    [
        ("attributes ->> 'gen_ai.system_instructions' LIKE '%' || :end", False, True),
        ("to_tsvector('simple', attributes) @@ 'finally'", False, True),
        ("(attributes #> '{gen_ai.input.messages,0,role}') IS NOT NULL", False, True),
        ("""attributes @> '{"gen_ai.input.messages": [{"role": "user"}]}'""", False, True),
        ("""attributes @? '$."gen_ai.input.messages"[*].role'""", False, True),
        ("length(attributes ->> 'gen_ai.system_instructions') = 101", True, False),
    ],
    ids=["substring", "word", "part", "contained", "jsonpath", "length"],
)
def test_what_sql_cannot_see(pool: StoragePool, condition: str, framed: bool, inline: bool) -> None:
    modes: tuple[PayloadMode, ...] = ("compressed", "inline")
    for trace, payloads in enumerate(modes, 1):
        span = a_turn(trace, 1)
        span["attributes"]["gen_ai.system_instructions"] = a_text(trace) + " finally"
        write(pool, [span], payloads=payloads)
    spans = f"{quoted_name(pool.schema)}.trace_spans"
    statement = sa.text(f"SELECT ({condition}) FROM {spans} ORDER BY trace_id")
    with pool.engine.connect() as connection:
        found = connection.scalars(statement, {"end": "finally"} if ":end" in condition else {})
        assert found.all() == [framed, inline]


def test_a_preview_cannot_be_cast_to_json(pool: StoragePool) -> None:
    write(pool, *turns([1], 1))
    view = previews_of(pool)
    cast = sa.select(sa.cast(view.c.preview, JSONB)).where(view.c.key.like("%messages"))
    with (
        pool.engine.connect() as connection,
        pytest.raises(sa.exc.DataError, match="invalid input syntax for type json"),
    ):
        connection.scalar(cast)
