"""What stands in the JSON of spans is found the same with the indexes of closed partitions as
without, whichever way the search takes, and as plain Python finds it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    Exists,
    Not,
    OneOf,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    ValidationError,
    build_partition_indexes,
)
from observatory_storage.lifecycle.payload_index import index_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories import Page, SpanFilters, TraceFilters
from observatory_storage.repositories.traces import candidates, framed_content, span_search
from tests.payloads.chosen_values import move_values
from tests.repositories.plans import walk_first
from tests.repositories.samples import (
    DAY,
    Row,
    a_span,
    backwards,
    forwards,
    keys,
    newest_spans,
    newest_traces,
    statements,
    trace_key,
)
from tests.repositories.searched_spans import BEGIN, DAYS, QUERIES, ROWS, matching, some_filters
from tests.repositories.slices import index_slices
from tests.servers import Server
from tests.soak.scale import scaled


@pytest.fixture(scope="module", params=["open", "sliced", "closed", "mixed"])
def filled(
    request: pytest.FixtureRequest, postgres_server: Server, migrated_template: str
) -> Iterator[StoragePool]:
    """The rows in partitions without further indexes, with those of slices, and closed ones.

    Then with most prompts and completions in frames, half of whose words are indexed.
    """
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            CopyWriter(pool).write_spans(ROWS)
            if request.param == "closed":
                assert build_partition_indexes(pool, now=BEGIN + (DAYS - 1) * DAY).built
            if request.param == "sliced":
                assert index_slices(pool, (BEGIN + n * DAY / 3 for n in range(3 * DAYS)))
            if request.param == "mixed":
                chance = random.Random(5)
                assert move_values(pool, lambda key: "." in key and chance.random() < 0.4)
                assert index_payloads(Run.of(pool)).rows
                assert move_values(pool, lambda key: "." in key and chance.random() < 0.7)
            yield pool


@pytest.fixture(params=[(0, 12), (8, 20), (100_000, 3)], ids=str)
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many candidates are few, how many rows are walked first."""
    few, walked = request.param
    monkeypatch.setattr(candidates, "_MOST", few)
    monkeypatch.setattr(framed_content, "_MOST_HOURS", few)
    monkeypatch.setattr(span_search, "_BATCH", walked)
    walk_first(monkeypatch, walked)


# Pages that are larger than what is walked at a time, for filters that find much, and smaller ones.
@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(("seed", "limit"), [(0, 40), (1, 9)])
def test_spans_are_those_that_match(filled: StoragePool, seed: int, limit: int) -> None:
    for given, query in some_filters(seed, scaled(1, 12)):
        expected = [
            (row["trace_id"], row["span_id"])
            for row in sorted(
                matching(SpanFilters(**given), query),
                key=lambda r: (r["start_time"], r["trace_id"], r["span_id"]),
                reverse=True,
            )
        ]
        filters = SpanFilters(**given, text=query.text if query else None, limit=limit)
        with filled.unit_of_work() as uow:

            def page_at(*, of: SpanFilters = filters, **cursor: Any) -> Page[TraceSpan]:
                return uow.traces.list_spans(of, **cursor)

            pages = forwards(page_at)
            assert [key for page in pages for key in keys(page)] == expected, (given, query)
            assert [keys(page) for page in backwards(page_at, pages[-1])] == [
                keys(page) for page in pages
            ], (given, query)
            oldest = uow.traces.iterate_spans(filters, 50, oldest_first=True)
            assert keys(oldest) == expected[::-1], (given, query)
            assert uow.traces.list_spans(filters, total="exact").total == len(expected)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(("seed", "limit"), [(2, 9), (3, 40)])
def test_traces_are_those_of_matching_spans(filled: StoragePool, seed: int, limit: int) -> None:
    begins: dict[str, datetime] = {}
    for row in ROWS:
        begins[row["trace_id"]] = min(
            begins.get(row["trace_id"], row["start_time"]), row["start_time"]
        )
    for given, query in some_filters(seed, scaled(1, 12)):
        found = {row["trace_id"] for row in matching(TraceFilters(**given), query)}
        expected = sorted(found, key=lambda key: (begins[key], key), reverse=True)
        filters = TraceFilters(**given, text=query.text if query else None, limit=limit)
        with filled.unit_of_work() as uow:

            def page_at(*, of: TraceFilters = filters, **cursor: Any) -> Page[Trace]:
                return uow.traces.list(of, **cursor)

            pages = forwards(page_at)
            assert [t.trace_id for page in pages for t in page] == expected, (given, query)
            assert [[t.trace_id for t in page] for page in backwards(page_at, pages[-1])] == [
                [t.trace_id for t in page] for page in pages
            ], (given, query)
            assert uow.traces.list(filters, total="exact").total == len(expected)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(
    "attributes",
    [
        {"tenant": Not(*range(30))},
        {"tenant": OneOf(*range(9)), "version": Not(1)},
        {"none": Not(Exists()), "tenant": Not(3), "version": 2},
    ],
    ids=str,
)
def test_what_is_negated_is_left_out(filled: StoragePool, attributes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"attributes": attributes, "start_time": BEGIN + DAY}
    filters = TraceFilters(**given, limit=1000)
    spans = SpanFilters(**given, limit=1000)
    with filled.unit_of_work() as uow:
        found = [trace.trace_id for trace in uow.traces.list(filters)]
        assert found == newest_traces(ROWS, filters)
        assert keys(uow.traces.list_spans(spans)) == newest_spans(ROWS, spans)
        assert 0 < len(found) < 160
        assert uow.traces.list(replace(filters, limit=1), total="exact").total == len(found)


def test_search_text_is_a_list_by_text(filled: StoragePool) -> None:
    bounds = SpanFilters(start_time=BEGIN + 2 * DAY, end_time=BEGIN + 5 * DAY, limit=3)
    with filled.unit_of_work() as uow:
        page = uow.traces.search_text("river", bounds, total="exact")
        following = uow.traces.search_text("river", bounds, after=page.next, payload=True)
        assert len(page) == len(following) == 3
        assert not set(keys(page)) & set(keys(following))
        assert page.total == len(matching(bounds, QUERIES[0]))
        assert following[0].attributes is not None
        with pytest.raises(ValidationError, match="another query"):
            uow.traces.search_text("paris", bounds, after=page.next)
        for text, field in ((" ", "text"), ("a" * 10_001, "text"), (None, "text")):
            with pytest.raises(ValidationError) as refused:
                uow.traces.search_text(text, bounds)  # type: ignore[arg-type]  # what is tried here
            assert refused.value.field == field
        with pytest.raises(ValidationError, match="a text of their own"):
            uow.traces.search_text("river", SpanFilters(text="paris"))


def test_a_trace_without_spans_is_searched_itself(pool: StoragePool) -> None:
    row = {
        "trace_id": trace_key(1),
        "service_name": "service",
        "start_time": BEGIN,
        "attributes": {"input.value": "the river", "tenant": 1},
        "total_tokens": 10,
        "total_cost_usd": 1,
    }
    CopyWriter(pool).write_traces([row])
    met: list[dict[str, Any]] = [
        {"text": "river"},
        {"min_tokens": 10, "max_tokens": 10},
        {"min_cost_usd": 1, "max_cost_usd": 1, "text": "the", "attributes": {"tenant": 1}},
    ]
    unmet: list[dict[str, Any]] = [{"text": "sea"}, {"min_tokens": 11}, {"max_cost_usd": 0.5}]
    for walked in (0, 100):
        with pytest.MonkeyPatch.context() as patch, pool.unit_of_work() as uow:
            walk_first(patch, walked)
            assert [len(uow.traces.list(TraceFilters(**given))) for given in met] == [1, 1, 1]
            assert [len(uow.traces.list(TraceFilters(**given))) for given in unmet] == [0, 0, 0]


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(
    "given", [{"attributes": {"k": 1}}, {"text": "river"}, {"service_name": "s", "status": "error"}]
)
def test_traces_with_and_without_spans_stand_in_one_order(
    pool: StoragePool, given: dict[str, Any]
) -> None:
    row: Row = {"service_name": "s", "status": "error"}
    row |= {"attributes": {"k": 1, "input.value": "river"}}
    starts = {n: BEGIN + n % 7 * DAY / 2 for n in range(1, 31)}  # many start at one moment
    CopyWriter(pool).write_spans([a_span(n, n, starts[n], **row) for n in starts if n % 3])
    alone = [
        {"trace_id": trace_key(n), "start_time": starts[n], **row} for n in starts if not n % 3
    ]
    CopyWriter(pool).write_traces(alone)
    expected = [trace_key(n) for n in sorted(starts, key=lambda n: (starts[n], n), reverse=True)]
    filters = TraceFilters(**given, limit=4)
    with pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[Trace]:
            return uow.traces.list(filters, **cursor)

        pages = forwards(page_at)
        assert [trace.trace_id for page in pages for trace in page] == expected
        assert [[t.trace_id for t in page] for page in backwards(page_at, pages[-1])] == [
            [t.trace_id for t in page] for page in pages
        ]


def test_the_ends_of_time_are_searched(pool: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    walk_first(monkeypatch, 0)
    far = [datetime.min.replace(tzinfo=UTC), BEGIN, datetime.max.replace(tzinfo=UTC) - DAY]
    rows = [
        {**a_span(n, n, start), "end_time": None, "attributes": {"k": 1}}
        for n, start in enumerate(far, 1)
    ]
    CopyWriter(pool).write_spans(rows)
    for few in (0, 5):
        monkeypatch.setattr(candidates, "_MOST", few)
        with pool.unit_of_work() as uow:
            filters = SpanFilters(attributes={"k": 1})
            found = uow.traces.list_spans(filters)
            assert [int(span.span_id) for span in found] == [3, 2, 1]
            oldest = uow.traces.iterate_spans(filters, 2, oldest_first=True)
            assert [int(span.span_id) for span in oldest] == [1, 2, 3]
            traces = uow.traces.iterate(TraceFilters(attributes={"k": 1}), 2)
            assert [int(trace.trace_id) for trace in traces] == [3, 2, 1]


def test_the_number_of_statements_does_not_grow_with_the_spans(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow, statements(filled.engine) as seen:
        uow.traces.list_spans(SpanFilters(attributes={"tenant": 3}))
        assert len(seen) <= 3
        seen.clear()
        uow.traces.list(TraceFilters(text="never"))
        # Where there are frames, two are read for each of the ways that are tried.
        assert len(seen) <= (16 if "payload_frames" in str(seen) else 6), seen
