"""Rules hold whichever way a row comes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.errors import BatchError, ValidationError
from observatory_storage.llm import LlmSpan
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, Trace, TraceSpan
from observatory_storage.writers import (
    CopyWriter,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.rules.doors import (
    LOG_DOORS,
    MAIL,
    METRIC_DOORS,
    NANOSECONDS,
    SECRET,
    SPAN_DOORS,
    otlp_span,
    pool_with,
    request,
    span_request,
    stored_anywhere,
)
from tests.writers.helpers import a_log, a_metric, a_point, a_span, eventually, fetch, span_id
from tests.writers.spool.spooling import away, files

PLAIN: dict[str, Any] = {
    "own.model": "gpt-4o",
    "own.header.cookie": "secret",
    "user.id": f"user {SECRET}",
    "gen_ai.usage.input_tokens": 7,
    "deep": [{"who": [f"<{SECRET}>"], SECRET: 1}],
    "json": f'{{"to": "{SECRET}", "escaped": "al\\u0069ce@example\\u002eorg"}}',
    "gen_ai.input.messages": [{"role": "user", "content": "a long question"}],
}
CHANGES: dict[str, Any] = {
    "drop_attributes": ["own.header.*"],
    "rename_attributes": {"own.model": "gen_ai.request.model"},
    "redact": [{"pattern": MAIL, "replacement": "[mail]"}],
}


@pytest.mark.parametrize("door", SPAN_DOORS)
def test_spans_are_changed(database_url: str, door: str) -> None:
    with pool_with(database_url, **CHANGES) as pool:
        SPAN_DOORS[door](pool, PLAIN)
        rows = fetch(pool, TraceSpan)
        assert rows
        for row in rows:
            attributes = row["attributes"]
            assert attributes["user.id"] == "user [mail]"
            assert attributes["deep"] == [{"who": ["<[mail]>"], "[mail]": 1}]
            assert attributes["json"] == '{"to": "[mail]", "escaped": "[mail]"}'
            assert "own.header.cookie" not in attributes
            if door != "model_call":  # which has an attribute of the new name
                assert "own.model" not in attributes
                assert attributes["gen_ai.request.model"] == row["model"] == "gpt-4o"
            assert (row["user_id"], row["prompt_tokens"]) == ("user [mail]", 7)
        assert not stored_anywhere(pool, SECRET)
        assert not stored_anywhere(pool, "secret")
    # What was passed is as it was.
    assert "own.model" in PLAIN
    assert SECRET in PLAIN["user.id"]


@pytest.mark.parametrize("door", SPAN_DOORS)
def test_contents_are_dropped_and_facts_kept(database_url: str, door: str) -> None:
    given = PLAIN | {
        "llm.input_messages.0.message.content": "a long question",
        "output.value": "an answer",
    }
    with pool_with(database_url, drop_contents=True) as pool:
        SPAN_DOORS[door](pool, given)
        for row in fetch(pool, TraceSpan):
            assert row["attributes"]["own.model"] == "gpt-4o"
            assert (row["prompt_tokens"], row["total_tokens"]) == (7, 7)
            assert row["user_id"] == f"user {SECRET}"
        assert not stored_anywhere(pool, "a long question")
        assert not stored_anywhere(pool, "an answer")


@pytest.mark.parametrize("door", LOG_DOORS)
def test_logs_are_changed(database_url: str, door: str) -> None:
    with pool_with(database_url, **CHANGES) as pool:
        LOG_DOORS[door](pool, PLAIN, f"mail to {SECRET}")
        rows = fetch(pool, LogRecord)
        assert rows
        for row in rows:
            assert row["body"] == "mail to [mail]"
            assert row["attributes"]["gen_ai.request.model"] == "gpt-4o"
        assert not stored_anywhere(pool, SECRET)
        assert not stored_anywhere(pool, "secret")


@pytest.mark.parametrize("door", METRIC_DOORS)
def test_data_points_are_changed(database_url: str, door: str) -> None:
    with pool_with(database_url, **CHANGES) as pool:
        METRIC_DOORS[door](pool, "requests", PLAIN)
        rows = fetch(pool, MetricDataPoint)
        assert [row["attributes"]["user.id"] for row in rows] == ["user [mail]"] * 2
        assert not stored_anywhere(pool, SECRET)


@pytest.mark.parametrize("door", METRIC_DOORS)
def test_a_metric_is_dropped_with_its_points(database_url: str, door: str) -> None:
    with pool_with(database_url, drop=[{"name": "queue.*"}]) as pool:
        METRIC_DOORS[door](pool, "queue.length", {})
        METRIC_DOORS[door](pool, "requests", {})
        assert [row["name"] for row in fetch(pool, Metric)] == ["requests"]
        assert len(fetch(pool, MetricDataPoint)) == 2


def test_spans_are_dropped_and_their_children_keep_their_parent(database_url: str) -> None:
    drop = [
        {"scope": "redis*"},
        {"name": "GET /health"},
        {"attribute": "url.path", "pattern": "^/live$"},
    ]
    with pool_with(database_url, drop=drop) as pool:
        with TraceWriter(pool, WriterConfig(redact=lambda row: row)) as writer:
            writer.write_span(a_span(1, 1, scope_name="redis.client"))
            writer.write_spans(
                [
                    a_span(1, 2, name="GET /health"),
                    a_span(1, 3, parent_span_id=span_id(2), name="GET /healthy"),
                    TraceSpan(**a_span(1, 4, attributes={"url.path": "/live"})),
                    a_span(1, 5, attributes={"url.path": "/live/1"}),
                ]
            )
            writer.flush()
            assert writer.write_stats().dropped_by_rules == 3
            assert (writer.write_stats().dropped, writer.write_stats().redacted) == (0, 0)
        rows = fetch(pool, TraceSpan, "span_id")
        assert [row["span_id"] for row in rows] == [span_id(3), span_id(5)]
        assert rows[0]["parent_span_id"] == span_id(2)
        assert fetch(pool, Trace)[0]["span_count"] == 2


@pytest.mark.parametrize("count", [1, 200])
def test_a_copy_writer_counts_what_it_writes(database_url: str, count: int) -> None:
    with pool_with(database_url, drop=[{"name": "noise"}]) as pool:
        noise = a_span(1, 999, name="noise")
        spans = [TraceSpan(**a_span(1, n)) for n in range(1, count + 1)]
        assert CopyWriter(pool).write_spans([noise, *spans]) == count
        assert CopyWriter(pool).write_spans([noise]) == 0
        bad = a_span(1, 1, kind="wrong")
        with pytest.raises(ValidationError) as caught:
            CopyWriter(pool).write_spans([noise, *spans[1:], noise, bad])
        assert caught.value.index == count + 1
        assert len(fetch(pool, TraceSpan)) == count


def test_a_list_tells_refused_rows_by_their_index(database_url: str) -> None:
    with pool_with(database_url, drop=[{"name": "noise"}]) as pool, LogWriter(pool) as writer:
        rows: list[Any] = [a_log(event_name="noise"), a_log(severity_number=99), a_log(), 5]
        with pytest.raises(BatchError) as caught:
            writer.write_logs(rows)
        assert [one.index for one in caught.value.rejected] == [1, 3]
        assert writer.flush().committed == 1


def test_ingest_tells_what_was_dropped(database_url: str) -> None:
    with pool_with(database_url, drop=[{"scope": "redis"}, {"name": "noise"}]) as pool:
        spans = [otlp_span(n, "noise" if n % 2 else "kept") for n in range(1, 7)]
        result = ingest_traces(pool, span_request(*spans, {"name": "kept"}))
        assert (result.accepted, len(result.rejected), result.dropped_by_rules) == (3, 1, 3)
        assert result.rejected[0].index == 6
        result = ingest_traces(pool, span_request(*spans, scope="redis"))
        assert (result.accepted, result.rejected, result.dropped_by_rules) == (0, [], 6)
        many = [otlp_span(n, "noise" if n % 2 else "kept") for n in range(1, 301)]
        result = ingest_traces(pool, span_request(*many))
        assert (result.accepted, result.dropped_by_rules) == (150, 150)
        record = {"timeUnixNano": NANOSECONDS, "eventName": "noise"}
        result = ingest_logs(pool, request("resourceLogs", "scopeLogs", "logRecords", record))
        assert (result.accepted, result.dropped_by_rules) == (0, 1)
        points = [{"timeUnixNano": NANOSECONDS, "asInt": "1"}] * 2
        metrics = [
            {"name": name, "gauge": {"dataPoints": points[:n]}}
            for name, n in (("noise", 2), ("m", 1))
        ]
        result = ingest_metrics(
            pool, request("resourceMetrics", "scopeMetrics", "metrics", *metrics)
        )
        assert (result.accepted, result.rejected, result.dropped_by_rules) == (1, [], 2)


def test_points_whose_attributes_become_equal_stay_apart(database_url: str) -> None:
    with pool_with(database_url, drop_attributes=["host"]) as pool:
        with MetricWriter(pool) as writer:
            metric = writer.write_metric(a_metric())
            writer.write_data_points([a_point(metric, attributes={"host": n}) for n in range(3)])
        rows = fetch(pool, MetricDataPoint)
        assert [row["attributes"] for row in rows] == [{}] * 3
        assert len({row["id"] for row in rows}) == 3


def test_points_find_their_metric_by_the_id_that_it_had(database_url: str) -> None:
    with pool_with(
        database_url, drop_attributes=["process.pid"], rename_attributes={"zone": "cloud.zone"}
    ) as pool:
        resource = {"process.pid": 5, "zone": "a"}
        with MetricWriter(pool) as writer:
            instance = Metric(**a_metric(resource_attributes=resource))
            given = Metric(**a_metric(resource_attributes=resource))
            metric = writer.write_metric(instance)
            writer.write_metrics([given])
            writer.write_metric(instance)
            writer.write_data_point(a_point(metric))
        assert instance.id == given.id == metric
        [row] = fetch(pool, Metric)
        assert row["resource_attributes"] == {"cloud.zone": "a"}
        assert fetch(pool, MetricDataPoint)[0]["metric_id"] == row["id"]


def test_what_is_spooled_has_passed_the_rules(
    embedded_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    config = WriterConfig(flush_interval_secs=None, spool_dir=tmp_path / "spool")
    rules = CHANGES | {"drop": [{"name": "noise"}], "drop_contents": True}
    with pool_with(embedded_server.url, **rules) as pool:
        pool.run_migrations()
        with TraceWriter(pool, config) as writer:
            with away(embedded_server):
                writer.write_span(a_span(attributes=PLAIN))
                writer.write_spans([a_span(1, n, attributes=PLAIN) for n in range(2, 20)])
                writer.write_span(a_span(2, 1, name="noise"))
                writer.write_span_from_llm(LlmSpan(model="m", prompt="a long question"))
                assert writer.flush().spooled == 20
                spooled = b"".join(path.read_bytes() for path in files(config))
            eventually(lambda: writer.write_stats().replayed == 20)
        for text in (SECRET, "secret", "a long question", "noise"):
            assert text.encode() not in spooled
            assert not stored_anywhere(pool, text)
        models = Counter(row["model"] for row in fetch(pool, TraceSpan))
        assert models == {"gpt-4o": 19, "m": 1}
