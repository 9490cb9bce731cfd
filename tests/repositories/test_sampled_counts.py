"""Counts, sums and percentiles of sampled traces are estimates of all traces."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import TailSampling, TraceWriter, WriterConfig
from observatory_storage.pool import StoragePool
from observatory_storage.rows.consistent_sampling import ALL
from tests import citus
from tests.lifecycle.rolled import LATER, check_answers, refresh
from tests.repositories.samples import statements
from tests.views.view_rows import costs, expected_costs, expected_sessions, sessions
from tests.writers.trace_model import check_traces

DAY = datetime(2026, 3, 14, tzinfo=UTC)
TRACES = 10_000
Row = dict[str, Any]


def emitted(count: int) -> list[Row]:
    """The roots of traces: of a hundred, one has failed, one is slow, and one is expensive."""
    chance = random.Random(2026)
    rows = []
    for number in range(count):
        start = DAY + timedelta(seconds=number * 86_400 / count)
        row: Row = {
            "trace_id": f"{chance.getrandbits(128):032x}",
            "span_id": f"{number + 1:016x}",
            "name": "chat",
            "service_name": chance.choice(("shop", "search")),
            "start_time": start,
            "duration_us": chance.randrange(1_000, 900_000),
            "status": "ok",
            "model": "gpt-4o",
            "total_tokens": chance.randrange(10, 1_000),
            "total_cost_usd": Decimal(chance.randrange(1, 100)) / 1_000,
            "token_details": {"prompt_cache_read": 5},
            "user_id": chance.choice(("ada", "bob", None)),
            "session_id": chance.choice(("s1", "s2", None)),
        }
        if number % 100 == 0:
            row["status"] = "error"
        elif number % 100 == 1:
            row["duration_us"] = chance.randrange(1_000_001, 9_000_000)
        elif number % 100 == 2:
            row["total_cost_usd"] = Decimal(chance.randrange(101, 999)) / 1_000
        rows.append(row)
    return rows


def write(pool: StoragePool, rows: list[Row], share: float) -> list[tuple[Row, int]]:
    """Write traces through sampling; return those that have to be kept, with their weights."""
    sampling = TailSampling(share=share, slower_than_secs=1, costlier_than_usd=Decimal("0.1"))
    with TraceWriter(pool, WriterConfig(sampling=sampling)) as writer:
        writer.write_spans(rows)
    told = writer.write_stats()
    expected = []
    for row in rows:
        if (
            row["status"] == "error"
            or row["duration_us"] > 1_000_000
            or row["total_cost_usd"] > Decimal("0.1")
        ):
            expected.append((row, 1))
        elif int(row["trace_id"][-14:], 16) >= ALL - round(ALL * share):
            expected.append((row, round(1 / share)))
    assert (told.rows, told.sampled_out) == (len(expected), len(rows) - len(expected))
    return expected


def percentile(rows: list[tuple[Row, int]], share: float) -> float:
    """What percentile_cont says of the durations, each as often as its trace stands for others."""
    values = sorted(row["duration_us"] for row, weight in rows for _ in range(weight))
    place = share * (len(values) - 1)
    low, high = values[int(place)], values[min(int(place) + 1, len(values) - 1)]
    return float(low + (high - low) * (place - int(place)))


def test_of_ten_thousand_traces_all_that_matter_and_a_share_are_kept(pool: StoragePool) -> None:
    rows = emitted(TRACES)
    kept = write(pool, rows, 0.1)
    with pool.unit_of_work() as uow:
        ids = {trace.trace_id for trace in uow.traces.iterate(start_time=DAY)}
        stats = uow.traces.get_stats()
        (spans,) = uow.traces.get_stats(group_by=("model",))
    assert ids == {row["trace_id"] for row, _ in kept}
    matter = {row["trace_id"] for row in rows[0::100] + rows[1::100] + rows[2::100]}
    assert len(matter) == 300
    assert matter <= ids
    estimated = sum(weight for _, weight in kept)
    assert stats.trace_count == stats.span_count == spans.span_count == spans.trace_count
    assert stats.trace_count == estimated
    # The ids are the same in every run: this is no chance.
    assert abs(estimated - TRACES) < 0.05 * TRACES
    assert (stats.error_trace_count, stats.error_span_count, spans.error_count) == (100,) * 3
    assert stats.error_rate == pytest.approx(0.01, rel=0.05)
    tokens = sum(row["total_tokens"] * weight for row, weight in kept)
    assert stats.total_tokens == spans.total_tokens == tokens
    assert isinstance(stats.total_tokens, int)
    assert tokens == pytest.approx(sum(row["total_tokens"] for row in rows), rel=0.1)
    cost = sum((row["total_cost_usd"] * weight for row, weight in kept), Decimal())
    assert stats.total_cost_usd == spans.total_cost_usd == cost
    for found in (stats, spans):
        assert found.p50_duration_us == percentile(kept, 0.5)
        assert found.p99_duration_us == percentile(kept, 0.99)
    mean = sum(row["duration_us"] * weight for row, weight in kept) / estimated
    assert stats.avg_duration_us == pytest.approx(mean)
    assert spans.avg_duration_us == pytest.approx(mean)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_every_aggregate_honours_weights_with_rollups_and_without(
    pool: StoragePool, share: float
) -> None:
    kept = write(pool, emitted(400), share)
    total = sum(weight for _, weight in kept)
    with pool.unit_of_work() as uow:
        (summary,) = uow.metrics.get_cost_summary(group_by=(), source="raw")
        assert summary.span_count == total
        (latency,) = uow.metrics.get_latency_percentiles(
            DAY, LATER, bucket_size_secs="day", source="raw"
        )
        assert (latency.span_count, latency.p95_us) == (total, percentile(kept, 0.95))
        of_users = uow.metrics.get_user_usage(source="raw")
        assert {user.user_id: user.span_count for user in of_users} == {
            name: sum(weight for row, weight in kept if row["user_id"] == name)
            for name in ("ada", "bob")
        }
        errors = uow.metrics.get_error_summary(source="raw")
        assert sum(error.span_count for error in errors) == 4
        of_groups = uow.traces.get_stats(group_by=("service_name",), bucket_size_secs=6 * 3600)
        for group in of_groups:
            assert group.timestamp is not None
            among = [
                (row, weight)
                for row, weight in kept
                if row["service_name"] == group.group["service_name"]
                and group.timestamp <= row["start_time"] < group.timestamp + timedelta(hours=6)
            ]
            assert group.span_count == group.trace_count == sum(weight for _, weight in among)
            assert group.p50_duration_us == percentile(among, 0.5)
        of_sessions = uow.traces.list_sessions()
        assert {one.session_id: one.trace_count for one in of_sessions} == {
            name: sum(weight for row, weight in kept if row["session_id"] == name)
            for name in ("s1", "s2")
        }
        assert check_answers(uow, DAY, LATER) == {"raw"}
        if not citus.URL:  # which refuses these views
            assert costs(uow) == expected_costs(uow)
            assert sessions(uow) == expected_sessions(uow)
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        assert "rollup" in check_answers(uow, DAY, LATER)
        if not citus.URL:
            assert costs(uow) == expected_costs(uow)


def test_totals_of_traces_have_no_systematic_error_across_services(
    pool: StoragePool, database_url: str
) -> None:
    """Where one service keeps a trace for certain, and the other keeps its part by the share."""
    chance = random.Random(2026)
    config = WriterConfig(sampling=TailSampling(share=0.25))
    count = 2_000
    with (
        StoragePool(pool.config) as elsewhere,  # another process decides for itself, as this does
        TraceWriter(pool, config) as front,
        TraceWriter(elsewhere, config) as back,
    ):
        for number in range(count):
            trace = {"trace_id": f"{chance.getrandbits(128):032x}", "start_time": DAY}
            root = {"span_id": "a" * 16, "name": "POST /ask", "service_name": "front"}
            status = "error" if number % 2 else "ok"
            front.write_span({**trace, **root, "status": status, "duration_us": 5})
            called = {"span_id": "b" * 16, "parent_span_id": "a" * 16, "kind": "server"}
            usage = {"total_tokens": 10, "total_cost_usd": Decimal("0.5"), "session_id": "s"}
            back.write_span(
                {
                    **trace,
                    **called,
                    **usage,
                    "name": "chat",
                    "service_name": "back",
                    "duration_us": 1,
                }
            )
    with pool.unit_of_work() as uow:
        stats = uow.traces.get_stats()
        (spans,) = uow.traces.get_stats(group_by=())
        (costs_of_spans,) = uow.metrics.get_cost_summary(group_by=())
        (session,) = uow.traces.list_sessions()
        if not citus.URL:
            assert sessions(uow) == expected_sessions(uow)
    assert stats.total_cost_usd == session.total_cost_usd == costs_of_spans.total_cost_usd
    assert stats.total_tokens == costs_of_spans.total_tokens
    assert stats.total_tokens == pytest.approx(count * 10, rel=0.05)
    assert float(stats.total_cost_usd or 0) == pytest.approx(count / 2, rel=0.05)
    assert (stats.span_count, stats.error_span_count) == (spans.span_count, spans.error_count)
    assert stats.span_count == pytest.approx(count * 2, rel=0.05)
    assert stats.trace_count == pytest.approx(count, rel=0.05)
    assert stats.error_trace_count == stats.error_span_count == count / 2
    assert check_traces(pool) > count / 2


def test_spans_may_be_deleted_while_percentiles_are_computed(pool: StoragePool) -> None:
    (row,) = emitted(1)
    with TraceWriter(pool) as writer:
        writer.write_span({**row, "sample_weight": 10})

    def delete(_: Any, __: Any, statement: str, *___: Any) -> None:
        # The second statement has the weighted percentiles.
        if "ranked" in statement and not deleted:
            deleted.append(statement)
            with pool.unit_of_work() as other:
                other.traces.delete(row["trace_id"])
                other.commit()

    deleted: list[str] = []
    sa.event.listen(pool.engine, "before_cursor_execute", delete)
    with pool.unit_of_work() as uow:
        (latency,) = uow.metrics.get_latency_percentiles(DAY, LATER, bucket_size_secs="day")
    assert len(deleted) == 1
    # What the first statement has found.
    assert (latency.span_count, latency.p50_us) == (10, row["duration_us"])


@pytest.mark.parametrize(("weight", "more"), [(None, 0), (1, 0), (2, 1)])
def test_statements_of_weights_are_run_for_weights_above_1_alone(
    pool: StoragePool, weight: int | None, more: int
) -> None:
    rows = [{**row, "sample_weight": weight} for row in emitted(20)]
    with TraceWriter(pool) as writer:
        writer.write_spans(rows)
    with pool.unit_of_work() as uow, statements(pool.engine) as seen:
        uow.traces.get_stats()
        of_traces = len(seen)
        uow.traces.get_stats(group_by="model")
    assert of_traces == 1 + more
    assert len(seen) == 2 + 3 * more


def test_models_without_a_price_are_counted_by_weight(pool: StoragePool) -> None:
    rows = [{**row, "total_cost_usd": None, "provider": "openai"} for row in emitted(50)]
    with TraceWriter(pool) as writer:
        writer.write_spans([{**row, "sample_weight": 3} for row in rows])
    with pool.unit_of_work() as uow:
        (model,) = uow.metrics.get_unpriced_models()
    assert model.span_count == 150
    assert model.total_tokens == 3 * sum(row["total_tokens"] for row in rows)


def test_a_trace_of_a_list_is_the_trace_itself(pool: StoragePool) -> None:
    (row,) = emitted(1)
    with TraceWriter(pool) as writer:
        writer.write_span({**row, "sample_weight": 7})
    with pool.unit_of_work() as uow:
        page = uow.traces.list(total="exact")
        (trace,) = page
    assert page.total == 1
    assert (trace.span_count, trace.total_tokens) == (1, row["total_tokens"])
    assert trace.sample_weight == 7


def test_absurd_tokens_do_not_overflow(pool: StoragePool) -> None:
    (row,) = emitted(1)
    absurd = {**row, "total_tokens": 2**63 - 1, "sample_weight": 2**31 - 1}
    with TraceWriter(pool) as writer:
        writer.write_span(absurd)
    expected = (2**63 - 1) * (2**31 - 1)
    with pool.unit_of_work() as uow:
        assert uow.traces.get_stats().total_tokens == expected
        (summary,) = uow.metrics.get_cost_summary()
    assert summary.total_tokens == expected
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        (summary,) = uow.metrics.get_cost_summary()
    assert (summary.total_tokens, summary.source) == (expected, "rollup")
