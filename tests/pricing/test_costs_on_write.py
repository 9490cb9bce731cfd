"""Which costs are computed when spans are written, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    PoolConfig,
    PostgresConfig,
    PricingConfig,
    StorageConfig,
    StoragePool,
    TraceWriter,
    export_traces,
    ingest_traces,
    load_prices,
)
from observatory_storage.models import TraceSpan
from tests.pricing.price_list import price_file
from tests.pricing.spans_of_calls import a_call, costs, price_model, totals
from tests.rules.doors import otlp_span, span_request
from tests.writers.helpers import Row, a_span, fetch

COST = Decimal("0.002")
TOLD = Decimal("0.5")


@pytest.fixture(autouse=True)
def _priced(pool: StoragePool) -> None:
    price_model(pool, 1)


@pytest.fixture
def writer(pool: StoragePool) -> CopyWriter:
    return CopyWriter(pool)


def test_a_cost_is_computed_where_none_is_told(pool: StoragePool, writer: CopyWriter) -> None:
    writer.write_spans([a_call(1, 1), a_call(1, 2, total_cost_usd=TOLD), a_span(1, 3)])
    assert costs(pool) == [(COST, "computed"), (TOLD, "told"), (None, None)]
    assert totals(pool) == [COST + TOLD]
    (row, *_) = fetch(pool, TraceSpan, "span_id")
    assert row["prompt_cost_usd"] == row["completion_cost_usd"] == COST / 2


def test_a_cost_of_zero_for_tokens_is_as_good_as_none(
    pool: StoragePool, writer: CopyWriter
) -> None:
    writer.write_spans([a_call(1, 1, total_cost_usd=0), a_call(1, 2, total_cost_usd=0, model="x")])
    assert costs(pool) == [(COST, "computed"), (Decimal(0), "told")]


def test_a_price_of_zero_is_a_cost_of_zero(pool: StoragePool, writer: CopyWriter) -> None:
    price_model(pool, 0)
    writer.write_spans([a_call()])
    assert costs(pool) == [(Decimal(0), "computed")]
    with pool.unit_of_work() as uow:
        assert uow.metrics.get_unpriced_models() == []


def test_writing_a_span_again_changes_nothing(pool: StoragePool, writer: CopyWriter) -> None:
    spans = [a_call(1, number) for number in range(1, 4)]
    for _ in range(3):
        writer.write_spans(spans)
        assert costs(pool) == [(COST, "computed")] * 3
        assert totals(pool) == [3 * COST]


def test_a_span_that_is_written_again_has_the_price_of_now(
    pool: StoragePool, writer: CopyWriter
) -> None:
    writer.write_spans([a_call()])
    price_model(pool, 5)
    with pool.unit_of_work() as uow:
        (read,) = uow.traces.get_spans(f"{1:032x}")
    for again in (read, a_call()):
        writer.write_spans([again])
        assert costs(pool) == [(5 * COST, "computed")]
        assert totals(pool) == [5 * COST]
    writer.write_spans([a_call(total_cost_usd=TOLD)])
    assert costs(pool) == [(TOLD, "told")]
    assert totals(pool) == [TOLD]


def test_no_costs_are_computed_if_it_is_switched_off(database_url: str, tmp_path: Any) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(min_connections=0),
        pricing=PricingConfig(compute_costs=False),
    )
    with StoragePool(config) as pool:
        load_prices(pool, price_file(tmp_path))
        CopyWriter(pool).write_spans([a_call(), a_call(1, 2, model="gpt-4o", provider="openai")])
        assert costs(pool) == [(None, None)] * 2


def test_a_pool_of_one_connection_computes_costs_within_its_unit_of_work(
    database_url: str,
) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, acquire_timeout_secs=1),
    )
    with StoragePool(config) as pool:
        with pool.unit_of_work() as uow:
            assert not uow.traces.list()
            CopyWriter(uow).write_spans([a_call()])
            uow.commit()
        assert costs(pool) == [(COST, "computed")]


# Two spans report one call: the vendor's, and the one of a framework around it.
def one_call(**vendor: Any) -> list[Row]:
    framework = {"operation": "chat", "user_id": "u", "session_id": "s", "provider": "p"}
    return [a_call(1, 1, **framework), a_call(1, 2, parent_span_id=f"{1:016x}", **vendor)]


@pytest.mark.parametrize("method", ["copy", "insert"])
@pytest.mark.parametrize("order", ["together", "inner first", "outer first"])
def test_a_cost_that_one_span_of_a_call_tells_wins(
    pool: StoragePool, method: Any, order: str
) -> None:
    outer, inner = one_call(total_cost_usd=TOLD)
    batches = {
        "together": [[outer, inner]],
        "inner first": [[inner], [outer]],
        "outer first": [[outer], [inner]],
    }[order]
    for batch in batches:
        CopyWriter(pool, method=method).write_spans(batch)
    assert costs(pool) == [(TOLD, "told"), (None, None)]
    assert totals(pool) == [TOLD]
    (counts, repeats) = fetch(pool, TraceSpan, "span_id")
    # What each of them reports is kept, with its source.
    assert counts["reported_usage"]["total_cost_usd"] == "0.002"
    assert counts["reported_cost_source"] == "computed"
    assert repeats["reported_usage"]["total_cost_usd"] == "0.5"
    assert repeats["reported_cost_source"] == "told"
    # Without the one that told it, the cost is computed again.
    with pool.unit_of_work() as uow:
        spans = [span.to_dict() for span in uow.traces.list_spans()]
        uow.traces.delete(f"{1:032x}")
        uow.commit()
    CopyWriter(pool, method=method).write_spans(
        [{**span, "created_at": None} for span in spans if span["span_id"] == f"{1:016x}"]
    )
    assert costs(pool) == [(COST, "computed")]


def test_a_call_that_two_spans_report_costs_once(pool: StoragePool, writer: CopyWriter) -> None:
    for span in one_call():
        writer.write_spans([span])
    assert costs(pool) == [(COST, "computed"), (None, None)]
    assert totals(pool) == [COST]


def test_a_call_of_two_traces_takes_the_cost_that_was_told(
    pool: StoragePool, writer: CopyWriter
) -> None:
    writer.write_spans([a_call(1, 1, response_id="r", user_id="u", provider="p")])
    writer.write_spans([a_call(2, 2, response_id="r", total_cost_usd=TOLD)])
    assert totals(pool) == [COST, TOLD]
    pool.settle_usage()
    assert costs(pool) == [(TOLD, "told"), (None, None)]
    assert totals(pool) == [TOLD, None]


def test_a_cost_told_by_an_agent_covers_its_calls(pool: StoragePool, writer: CopyWriter) -> None:
    above = {"parent_span_id": f"{1:016x}"}
    writer.write_spans([a_call(1, 2, **above), a_call(1, 3, **above)])
    assert totals(pool) == [2 * COST]
    agent = {"prompt_tokens": 2000, "completion_tokens": 200, "operation": "invoke_agent"}
    writer.write_spans([a_call(1, 1, total_cost_usd=TOLD, **agent)])
    assert costs(pool) == [(TOLD, "told"), (None, None), (None, None)]
    assert totals(pool) == [TOLD]
    with pool.unit_of_work() as uow:
        assert uow.metrics.get_unpriced_models() == []


def test_computed_costs_are_not_exported(pool: StoragePool) -> None:
    attributes: dict[str, Any] = {
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 100,
    }
    request = span_request(otlp_span(**attributes))
    assert ingest_traces(pool, request).accepted == 1
    assert costs(pool) == [(COST, "computed")]
    (exported,) = export_traces(pool)
    assert "cost" not in str(exported)
    assert ingest_traces(pool, exported).duplicates == 1
    assert costs(pool) == [(COST, "computed")]
    assert list(export_traces(pool)) == [exported]


@pytest.fixture
def buffered(pool: StoragePool) -> Iterator[TraceWriter]:
    with TraceWriter(pool) as writer:
        yield writer


def test_a_writer_that_is_open_uses_new_prices_at_once(
    pool: StoragePool, buffered: TraceWriter
) -> None:
    buffered.write_span(a_call(1, 1))
    buffered.flush()
    price_model(pool, 3)
    buffered.write_span(a_call(1, 2))
    buffered.flush()
    assert costs(pool) == [(COST, "computed"), (3 * COST, "computed")]
