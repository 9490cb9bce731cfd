"""Whatever changes rows through this package, cached values follow at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    MetricWriter,
    RetentionConfig,
    StoragePool,
    TraceEvent,
    TraceSpan,
    TraceWriter,
    ingest_traces,
    load_prices,
    recompute_costs,
)
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.run import Run
from tests.cache.conftest import MakePool
from tests.cache.reading import KEY, content_of, some_spans, stored_keys
from tests.repositories.samples import START, a_span, span_key

SECOND = timedelta(seconds=1)


def flush(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        writer.write_span(a_span(1, 9, START, name="new"))


def many_rows(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, n, START, name="new") for n in range(9, 3_000)])


def replace(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans(name="renamed"))


def other_events(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(some_spans(events=[]))


def lone_event(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        writer.write_event(
            {
                "trace_id": KEY,
                "span_id": span_key(1),
                "span_start_time": START + SECOND,
                "position": 5,
                "name": "lone",
                "timestamp": START,
            }
        )


def request(pool: StoragePool) -> None:
    span = {
        "traceId": KEY,
        "spanId": span_key(9),
        "name": "from OTLP",
        "startTimeUnixNano": str(int(START.timestamp()) * 10**9),
    }
    ingest_traces(pool, {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


def unit_of_work(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        uow.traces.get_spans(KEY)[0].name = "changed"
        uow.commit()


def added_entity(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        event = TraceEvent(
            trace_id=uow.traces.get_by_trace_id(KEY).id,
            span_id=span_key(1),
            span_start_time=START + SECOND,
            position=7,
            name="added",
            timestamp=START,
        )
        uow.session.add(event)
        uow.session.commit()


def bulk_update(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        uow.session.execute(sa.update(TraceSpan).values(name="all"))
        uow.commit()


def table_update(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        uow.session.execute(sa.update(TraceSpan.__table__).values(name="table"))  # type: ignore[arg-type]
        uow.commit()


def update_in_cte(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        changed = sa.update(TraceSpan).values(name="cte").returning(TraceSpan.name).cte()
        assert set(uow.session.scalars(sa.select(changed.c.name))) == {"cte"}
        uow.commit()


def update_mappings(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        keys = [str(column.key) for column in sa.inspect(TraceSpan).primary_key]
        spans = [
            {**{key: getattr(span, key) for key in keys}, "name": "mapped"}
            for span in uow.traces.get_spans(KEY)
        ]
        uow.session.bulk_update_mappings(sa.inspect(TraceSpan), spans)
        uow.commit()


def update_on_connection(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        uow.session.connection().execute(sa.update(TraceSpan).values(name="connection"))
        uow.commit()


def update_in_savepoint(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        with uow.session.begin_nested():
            uow.session.execute(sa.update(TraceSpan).values(name="savepoint"))
        uow.commit()


def delete(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        uow.traces.delete(KEY)
        uow.commit()


def delete_user(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        uow.traces.delete_user("ada")
        uow.commit()


def costs(pool: StoragePool) -> None:
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("prices: [{model: m, usd_per_million_tokens: {input: 1}}]")
        file.flush()
        load_prices(pool, file.name)
    recompute_costs(pool)


def expire(pool: StoragePool) -> None:
    config = RetentionConfig(traces=timedelta(days=1))
    apply_retention(Run(pool, now=START + timedelta(days=900)), config=config)


ACTIONS: list[Callable[[StoragePool], None]] = [
    flush,
    many_rows,
    replace,
    other_events,
    lone_event,
    request,
    unit_of_work,
    added_entity,
    bulk_update,
    table_update,
    update_in_cte,
    update_mappings,
    update_on_connection,
    update_in_savepoint,
    delete,
    delete_user,
    costs,
    expire,
]


def everything(pool: StoragePool) -> list[object]:
    """What a trace and the statistics look like."""
    found: list[object] = []
    with pool.unit_of_work() as uow:
        try:
            spans = uow.traces.get_spans(KEY, with_events=True)
            found += [span.to_dict() for span in spans]
        except LookupError:
            found.append("no trace")
        found.append(uow.traces.operations("service"))
        found.append(uow.traces.get_stats(attributes={"attempt": 1}))
        found.append(uow.traces.get_stats(group_by="operation"))
        hour = START + timedelta(hours=1)
        found.append(uow.metrics.get_cost_summary(START, hour))
        found.append(uow.metrics.get_user_usage(start_time=START, end_time=hour))
    return found


@pytest.mark.parametrize("change", ACTIONS)
def test_cached_values_follow_at_once(
    pool: StoragePool, make_pool: MakePool, change: Callable[[StoragePool], None]
) -> None:
    reader, writer = make_pool(traces_recheck="1h"), make_pool()
    tokens: dict[str, Any] = {"model": "m", "prompt_tokens": 5_000_000, "user_id": "ada"}
    CopyWriter(pool).write_spans(some_spans(**tokens))
    before = everything(pool)
    assert everything(reader) == everything(reader) == before
    change(writer)
    after = everything(pool)
    assert after != before
    assert everything(reader) == everything(reader) == after


def test_settled_usage_is_followed(pool: StoragePool, make_pool: MakePool) -> None:
    reader, writer = make_pool(traces_recheck="1h"), make_pool()
    call: dict[str, Any] = {"response_id": "r1", "model": "m", "total_tokens": 10, "attributes": {}}
    CopyWriter(writer).write_spans([a_span(1, 1, **call)])
    CopyWriter(writer).write_spans([a_span(2, 2, **call)])
    before = everything(reader)
    assert everything(reader) == before
    assert writer.settle_usage().changed_traces
    assert everything(reader) == everything(pool) != before


def test_metrics_follow_at_once(make_pool: MakePool) -> None:
    reader, writer = make_pool(), make_pool()

    def write(description: str, value: float) -> str:
        with MetricWriter(writer) as metrics:
            key = metrics.write_metric(
                {
                    "name": "tokens",
                    "service_name": "shop",
                    "metric_type": "gauge",
                    "description": description,
                }
            )
            metrics.write_data_point(
                {"metric_id": key, "timestamp": START + value * SECOND, "value": value}
            )
        return str(key)

    def read(key: str) -> tuple[str | None, float | None]:
        with reader.unit_of_work() as uow:
            return uow.metrics.get(key).description, uow.metrics.get_stats(key).max_value

    key = write("first", 1)
    assert read(key) == read(key) == ("first", 1)
    assert write("second", 2) == key
    assert read(key) == read(key) == ("second", 2)


def test_erased_traces_leave_redis(make_pool: MakePool, client: redis.Redis) -> None:
    pool = make_pool()
    text = "very private"
    CopyWriter(pool).write_spans(some_spans(user_id="ada", attributes={"prompt": text}))
    with pool.unit_of_work() as uow:
        uow.traces.get_spans(KEY)
    assert values_with(client, text)
    with pool.unit_of_work() as uow:
        uow.traces.delete_user("ada")
        assert values_with(client, text)
        uow.commit()
    assert not values_with(client, text)


def values_with(client: redis.Redis, text: str) -> list[bytes]:
    keys = [key for key in stored_keys(client) if client.type(key) == b"string"]
    return [key for key in keys if text.encode() in content_of(client, key)]
