"""What is read from the cache is the same in every respect as what PostgreSQL gives."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    MetricWriter,
    NotFound,
    PayloadsConfig,
    StorageError,
    StoragePool,
    UnitOfWork,
)
from observatory_storage.stored_json import StoredJson
from tests import citus
from tests.cache.conftest import MakePool
from tests.cache.reading import KEY, counting, some_spans, stored_keys
from tests.repositories.samples import DAY, START, many_spans, statements

QUESTIONS: dict[str, Callable[[UnitOfWork], Any]] = {
    "services": lambda uow: uow.traces.services(),
    "operations": lambda uow: uow.traces.operations("api"),
    "totals of traces": lambda uow: uow.traces.get_stats(status="error"),
    "totals by group": lambda uow: uow.traces.get_stats(
        group_by=("model", "user_id"), bucket_size_secs="day", time_zone="Asia/Tokyo"
    ),
    "totals of a day": lambda uow: uow.traces.get_stats(
        group_by="model", start_time=START, end_time=START + DAY, attributes={"k": 1}
    ),
    "filled buckets": lambda uow: uow.traces.get_stats(
        group_by="service_name", bucket_size_secs=3600, fill="zero"
    ),
    "costs": lambda uow: uow.metrics.get_cost_summary(bucket_size_secs="day"),
    "latencies": lambda uow: uow.metrics.get_latency_percentiles(START, START + 3 * DAY),
    "users": lambda uow: uow.metrics.get_user_usage(),
    "active users": lambda uow: uow.metrics.get_active_users(),
    "errors": lambda uow: uow.metrics.get_error_summary(),
}


def twice(pool: StoragePool, kind: str, ask: Callable[[UnitOfWork], Any]) -> Any:
    """The answer to a question that has been asked before, which is a hit."""
    with pool.unit_of_work() as uow:
        ask(uow)
    with pool.unit_of_work() as uow, counting(pool, kind) as counted:
        answer = ask(uow)
    assert counted == {"hits": 1}
    return answer


@pytest.mark.parametrize("name", QUESTIONS)
def test_cached_results_are_those_of_postgresql(
    pool: StoragePool, cached: StoragePool, name: str
) -> None:
    CopyWriter(pool).write_spans(many_spans())
    ask = QUESTIONS[name]
    with pool.unit_of_work() as uow:
        expected = ask(uow)
    assert expected
    kind = "names" if name in ("services", "operations") else "statistics"
    found = twice(cached, kind, ask)
    if citus.URL:  # where answers of shards come in any order, so floats are summed in any order
        assert rounded(found) == rounded(expected)
        return
    assert found == expected
    assert repr(found) == repr(expected)


def rounded(answer: Any) -> str:
    """The answer as text, with six digits of each float."""
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.6f}", repr(answer))


def test_cached_spans_and_events_are_those_of_postgresql(
    pool: StoragePool, cached: StoragePool
) -> None:
    rows = many_spans()
    CopyWriter(pool).write_spans(rows)

    def both(uow: UnitOfWork) -> list[Any]:
        events = [event.to_dict() for event in uow.traces.get_events(key)]
        return [*events, *map(dict, uow.traces.get_spans(key, with_events=True))]

    def whole(uow: UnitOfWork) -> list[Any]:
        return [span.to_dict() for span in uow.traces.get_spans(key, with_events=True)]

    for key in {row["trace_id"] for row in rows}:
        with pool.unit_of_work() as uow:
            expected = [both(uow), whole(uow)]
        with cached.unit_of_work() as uow:
            uow.traces.get_spans(key)
        with cached.unit_of_work() as uow, counting(cached, "traces") as counted:
            found = [both(uow), whole(uow)]
        assert counted == {"hits": 3}
        assert repr(found) == repr(expected)


def test_odd_values_are_the_same(pool: StoragePool, cached: StoragePool) -> None:
    attributes = {"minus": -0.0, "big": 1e16, "small": 1e-300, "int": 2**63 - 1, "none": None}
    rows = some_spans(attributes=attributes, total_cost_usd=Decimal("1.00"), ttft_ms=1.0)
    rows[1]["total_cost_usd"] = Decimal("1.0")
    rows[2]["end_time"] = None
    rows[2]["start_time"] = datetime(1, 1, 1, tzinfo=UTC)
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        expected = [repr(span.to_dict()) for span in uow.traces.get_spans(KEY)]
    found = twice(cached, "traces", lambda uow: uow.traces.get_spans(KEY))
    assert [repr(span.to_dict()) for span in found] == expected


def test_integers_beyond_64_bits_are_read_from_postgresql(
    pool: StoragePool, cached: StoragePool
) -> None:
    CopyWriter(pool).write_spans(some_spans(attributes={"large": 2**80}))
    with counting(cached, "traces") as counted:
        for _ in range(2):
            with cached.unit_of_work() as uow:
                assert uow.traces.get_spans(KEY)[0].attributes == {"large": 2**80}
    assert counted == {"misses": 2}


def test_whole_attributes_are_cached_of_compressed_payloads(
    pool: StoragePool, cached: StoragePool
) -> None:
    text = "prompt " * 1_000
    writer = CopyWriter(pool, payloads="compressed")
    writer.write_spans(some_spans(attributes={"gen_ai.prompt": text}))
    found = twice(cached, "traces", lambda uow: uow.traces.get_spans(KEY))
    assert [span.attributes for span in found] == [{"gen_ai.prompt": text}] * 3
    assert {span.payload_frame for span in found} == {None}
    assert PayloadsConfig().mode == "inline"


def test_a_tree_without_payload_refuses_to_read_it(pool: StoragePool, cached: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans())
    with pool.unit_of_work() as uow:
        expected = uow.traces.get_tree(KEY)
    tree = twice(cached, "traces", lambda uow: uow.traces.get_tree(KEY))
    assert tree.to_dict() == expected.to_dict()
    with pytest.raises(StorageError, match="attributes was not loaded"):
        _ = tree.roots[0].span.attributes
    with_payload = twice(cached, "traces", lambda uow: uow.traces.get_tree(KEY, payload=True))
    assert with_payload.roots[0].span.attributes["number"] == 1


def test_relationships_of_cached_spans_are_not_loaded(
    pool: StoragePool, cached: StoragePool
) -> None:
    CopyWriter(pool).write_spans(some_spans())
    span = twice(cached, "traces", lambda uow: uow.traces.get_spans(KEY))[0]
    with pytest.raises(StorageError, match="events was not loaded"):
        _ = span.events


def test_changing_what_was_read_does_not_change_the_cache(
    pool: StoragePool, cached: StoragePool
) -> None:
    CopyWriter(pool).write_spans(some_spans())
    read = lambda uow: uow.traces.get_spans(KEY)  # noqa: E731
    spans = twice(cached, "traces", read)
    assert spans[0].resource_attributes == spans[1].resource_attributes
    spans[0].resource_attributes["service.name"] = "other"
    spans[0].attributes["list"].append(2)
    assert spans[1].resource_attributes == {"service.name": "shop"}
    again = twice(cached, "traces", read)
    assert again[0].resource_attributes == {"service.name": "shop"}
    assert again[0].attributes["list"] == [1, {"deep": "é"}]


def test_changes_of_cached_spans_are_committed(pool: StoragePool, cached: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans())
    twice(cached, "traces", lambda uow: uow.traces.get_spans(KEY))
    with cached.unit_of_work() as uow:
        first, second, third = uow.traces.get_spans(KEY)
        first.attributes["list"][1]["deep"] = "changed"
        second.attributes = {"new": True}
        third.status = "error"
        uow.commit()
    for one in (pool, cached):
        with one.unit_of_work() as uow:
            first, second, third = uow.traces.get_spans(KEY)
            assert first.attributes["list"] == [1, {"deep": "changed"}]
            assert second.attributes == {"new": True}
            assert (third.status, third.attributes["number"]) == ("error", 3)


def test_cached_spans_can_be_written_copied_and_pickled(
    pool: StoragePool, cached: StoragePool
) -> None:
    CopyWriter(pool).write_spans(some_spans())
    read = lambda uow: uow.traces.get_spans(KEY)  # noqa: E731
    attributes = some_spans()[0]["attributes"]
    span = twice(cached, "traces", read)[0]
    assert any(type(value) is StoredJson for value in vars(span).values())
    assert copy.deepcopy(span).attributes == attributes
    span = twice(cached, "traces", read)[0]
    assert pickle.loads(pickle.dumps(span)).attributes == attributes
    spans = twice(cached, "traces", read)
    with cached.unit_of_work() as uow:
        uow.traces.delete(KEY)
        uow.commit()
    CopyWriter(pool).write_spans(spans)
    with pool.unit_of_work() as uow:
        assert uow.traces.get_spans(KEY)[0].attributes == attributes


def test_a_cached_span_can_be_merged_into_a_session(pool: StoragePool, cached: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans())
    span = twice(cached, "traces", lambda uow: uow.traces.get_spans(KEY))[0]
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM trace_spans"))
    with pool.unit_of_work() as uow:
        uow.session.merge(span)
        uow.commit()
        assert uow.traces.get_spans(KEY)[0].attributes == some_spans()[0]["attributes"]


def test_metrics_are_cached(pool: StoragePool, cached: StoragePool) -> None:
    with MetricWriter(pool) as writer:
        key = writer.write_metric(
            {"name": "tokens", "service_name": "shop", "metric_type": "gauge"}
        )
        writer.write_data_point(
            {"metric_id": key, "timestamp": START, "value": 1.5, "attributes": {"a": 1}}
        )
    with pool.unit_of_work() as uow:
        expected, stats = uow.metrics.get(key), uow.metrics.get_stats(key)
    assert twice(cached, "metrics", lambda uow: uow.metrics.get(key)).to_dict() == dict(expected)
    (named,) = twice(cached, "metrics", lambda uow: uow.metrics.get_by_name("tokens"))
    assert named.to_dict() == expected.to_dict()
    assert twice(cached, "statistics", lambda uow: uow.metrics.get_stats(key)) == stats
    with cached.unit_of_work() as uow:
        for _ in range(2):
            with pytest.raises(NotFound):
                uow.metrics.get("00000000-0000-0000-0000-000000000000")


def test_a_hit_of_statistics_runs_no_statement(pool: StoragePool, cached: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans())
    with cached.unit_of_work() as uow:
        uow.metrics.get_cost_summary()
    with cached.unit_of_work() as uow, statements(cached.engine) as seen:
        uow.metrics.get_cost_summary()
    assert seen == []


@pytest.mark.parametrize(("recheck", "expected"), [("0s", 1), ("1h", 0)])
def test_a_cached_trace_takes_one_statement_or_none(
    pool: StoragePool, make_pool: MakePool, recheck: str, expected: int
) -> None:
    CopyWriter(pool).write_spans(some_spans())
    cached = make_pool(traces_recheck=recheck)
    counts = []
    for _ in range(3):
        with cached.unit_of_work() as uow, statements(cached.engine) as seen:
            uow.traces.get_spans(KEY, with_events=True)
            counts.append(len(seen))
    assert counts[2] == expected


def test_kinds_are_switched_off(pool: StoragePool, make_pool: MakePool) -> None:
    CopyWriter(pool).write_spans(some_spans())
    cached = make_pool(traces_ttl="0s", statistics_ttl="0s", names_ttl="0s")
    for _ in range(2):
        with cached.unit_of_work() as uow:
            uow.traces.get_spans(KEY)
            uow.traces.services()
            uow.traces.get_stats()
    assert {one for kind in cached.cache.stats().kinds.values() for one in vars_of(kind)} == {0}


def vars_of(result: Any) -> list[int]:
    return list(result.to_dict().values())


@pytest.mark.usefixtures("without_zstd")
def test_values_are_cached_without_zstandard(pool: StoragePool, cached: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans(attributes={"text": "word " * 2_000}))
    spans = twice(cached, "traces", lambda uow: uow.traces.get_spans(KEY))
    assert spans[0].attributes == {"text": "word " * 2_000}


def test_large_values_are_not_cached(pool: StoragePool, make_pool: MakePool) -> None:
    CopyWriter(pool).write_spans(some_spans())
    cached = make_pool(max_value_bytes=100)
    with counting(cached, "traces") as counted, cached.unit_of_work() as uow:
        uow.traces.get_spans(KEY)
    assert counted == {"misses": 1, "too_large": 1}


def test_values_expire(pool: StoragePool, make_pool: MakePool, client: redis.Redis) -> None:
    CopyWriter(pool).write_spans(some_spans())
    cached = make_pool(traces_ttl=timedelta(seconds=30), statistics_ttl="40s")
    with cached.unit_of_work() as uow:
        uow.traces.get_spans(KEY)
        uow.traces.get_stats()
    ages = {key: client.pttl(key) for key in stored_keys(client)}
    assert all(age > 0 for age in ages.values())
    assert [0 < age <= 30_000 for key, age in ages.items() if b":t:" in key] == [True]
    assert [0 < age <= 40_000 for key, age in ages.items() if b":r:" in key] == [True]


def test_without_redis_nothing_is_cached(pool: StoragePool) -> None:
    stats = pool.cache.stats()
    assert not stats.is_enabled
    pool.cache.clear()


def test_clearing_removes_what_others_have_stored(
    pool: StoragePool, make_pool: MakePool, client: redis.Redis
) -> None:
    CopyWriter(pool).write_spans(some_spans())
    first, second = make_pool(), make_pool()
    with first.unit_of_work() as uow:
        uow.traces.get_spans(KEY)
        uow.traces.get_stats()
    client.set("of others", 1)
    assert len(stored_keys(client)) > 1
    second.cache.clear()
    assert [key.rpartition(b":g:")[2] for key in stored_keys(client)] == [b"epoch"]
    assert client.get("of others") == b"1"
    with counting(first, "statistics") as counted, first.unit_of_work() as uow:
        uow.traces.get_stats()
    assert counted == {"misses": 1, "stored": 1}
