"""What the commands that read show, to people and to programs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest
from sqlalchemy import delete

from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from observatory_storage.models import Metric, MetricDataPoint
from tests.commands import (
    OTHER_TRACE,
    SINCE,
    TRACE,
    Run,
)


def test_traces_are_a_table(run_on_filled: Run) -> None:
    result = run_on_filled("traces", columns=140)
    assert result.code == 0, result.err
    head, newest, oldest = result.out.splitlines()
    assert head.split()[:5] == ["START", "(UTC)", "TRACE", "STATUS", "SERVICE"]
    assert newest.split()[:5] == [
        "2026-07-01",
        "12:01:00.000",
        OTHER_TRACE,
        "unset",
        "model-server",
    ]
    assert (
        oldest.split()
        == (
            f"2026-07-01 12:00:00.000 {TRACE} error assistant POST /ask 2.00 s 4 1! 1,234 $0.0012"
        ).split()
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--service", "assistant"], [TRACE]),
        (["--operation", "tick"], [OTHER_TRACE]),
        (["--status", "error"], [TRACE]),
        (["--since", "2026-07-01T12:00:30"], [OTHER_TRACE]),
        (["--until", "2026-07-01T14:00:30+02:00"], [TRACE]),
        (["--since", "1h", "--until", "1m"], []),
        (["--min-duration", "1.5s"], [TRACE]),
        (["--max-duration", "1ms"], [OTHER_TRACE]),
        (["--provider", "acme", "--model", "large", "--user", "ada"], [TRACE]),
        (["--gen-ai-operation", "chat"], [TRACE]),
        (["--agent", "planner"], []),
        (["gen_ai_operation:chat", "--response-model", "large"], []),
        (["--", "-has:agent -has:tool has:gen_ai_operation"], [TRACE]),
        (["--session", "none"], []),
        (["--session", "talk-1"], [TRACE]),
        (["--text", '"sky blue"'], [TRACE]),
        (["--min-cost", "0.001"], [TRACE]),
        (["--max-cost", "0.001"], []),
        (["--min-tokens", "1234"], [TRACE]),
        (["--max-tokens", "1233"], []),
        (["-a", "retries=2"], [TRACE]),
        (["-a", 'retries="2"'], []),
        (["-a", "retries=2", "-a", "user.id=ada"], [TRACE]),
        (["service:assistant status:error"], [TRACE]),
        (["service:assistant", "duration>100ms", "--status", "error"], [TRACE]),
        (["status!=error"], [OTHER_TRACE]),
        (["session:talk-1"], [TRACE]),
        (["session:talk*"], [OTHER_TRACE, TRACE]),
        (["--", "-session:talk-1"], [OTHER_TRACE]),
        (['"sky blue" cost>0 attributes.retries:2,3'], [TRACE]),
        (["--order", "duration", "--since", "2026-01-01"], [TRACE, OTHER_TRACE]),
        (["--order", "tokens", "--lowest-first", "start>=2026-01-01"], [TRACE, OTHER_TRACE]),
        (["--order", "cost", "start>=2026-01-01 start<2026-01-02"], []),
    ],
)
def test_filters_of_traces(run_on_filled: Run, options: list[str], found: list[str]) -> None:
    result = run_on_filled("traces", "--json", *options)
    assert result.code == 0, result.err
    assert [line["trace_id"] for line in result.lines] == found


def test_each_page_prints_the_cursor_of_the_next(run_on_filled: Run) -> None:
    first = run_on_filled("traces", "--limit", "1", "--json")
    assert [line["trace_id"] for line in first.lines] == [OTHER_TRACE]
    cursor = first.err.split()[-1]
    assert first.err == f"more with --after {cursor}\n"
    second = run_on_filled("traces", "--limit", "1", "--json", "--after", cursor)
    assert [line["trace_id"] for line in second.lines] == [TRACE]
    assert not second.err
    everything = run_on_filled("traces", "--limit", "1", "--json", "--all")
    assert [line["trace_id"] for line in everything.lines] == [OTHER_TRACE, TRACE]


def test_pages_lead_on_where_the_times_are_relative_to_now(run_on_filled: Run) -> None:
    options = ("traces", "--since", "36500d", "--until", "1s", "--limit", "1", "--json")
    first = run_on_filled(*options)
    second = run_on_filled(*options, "--after", first.err.split()[-1])
    assert second.code == 0, second.err
    assert [line["trace_id"] for line in first.lines + second.lines] == [OTHER_TRACE, TRACE]


def test_json_is_exact(run_on_filled: Run) -> None:
    result = run_on_filled("traces", "--json", "--user", "ada")
    assert result.lines[0]["start_time"] == "2026-07-01T12:00:00Z"
    # As a number with all of its digits, not the nearest float.
    assert '"total_cost_usd":0.001234567,' in result.out
    assert Decimal("0.001234567") == Decimal(str(result.lines[0]["total_cost_usd"]))


def test_trace_is_a_waterfall(run_on_filled: Run) -> None:
    result = run_on_filled("trace", TRACE, columns=100)
    title, facts, head, *rows = result.out.splitlines()
    assert title.split() == ["POST", "/ask", "assistant", TRACE]
    assert (
        facts
        == "2026-07-01 12:00:00.000 UTC · 2.00 s · 4 spans · 1 failed · 1,234 tokens · $0.0012"
    )
    assert head.split() == ["SPAN", "0", "2.00", "s", "DURATION", "TOKENS", "COST"]
    names = [row.split("━")[0].rstrip() for row in rows]
    assert names == [
        "POST /ask assistant",
        "├ ✗ chat small",
        "    no answer within 15 s",
        "└ chat large",
        "  └ generate model-server",
    ]
    assert rows[3].split()[-4:] == ["1.40", "s", "1,234", "$0.0012"]


def test_trace_as_json_is_whole(run_on_filled: Run) -> None:
    document = run_on_filled("trace", TRACE, "--json").document
    assert document["trace"]["span_count"] == len(document["spans"]) == 4
    assert [event["name"] for event in document["events"]] == ["exception"]
    assert document["spans"][2]["attributes"]["retries"] == 2
    assert document["spans"][0]["start_ns"] == 7


def test_trace_shows_no_more_than_its_limit(run_on_filled: Run) -> None:
    shown = run_on_filled("trace", TRACE, "--limit", "1").out
    assert "… 3 more spans, 1 of them failed: a higher --limit shows them" in shown


def test_sessions_are_a_table(run_on_filled: Run) -> None:
    head, newest, oldest = run_on_filled("sessions").out.splitlines()
    assert head.split()[:4] == ["LAST", "ACTIVE", "(UTC)", "SESSION"]
    assert newest.split() == ["2026-07-01", "12:01:00.000", "talk-2", "model-server", "1", "1"]
    assert " ".join(oldest.split()) == (
        "2026-07-01 12:00:00.600 talk-1 ada assistant 1 1! 4 1! 1,234 $0.0012"
    )
    (session,) = run_on_filled("sessions", "--user", "ada", "--json").lines
    assert (session["session_id"], session["span_count"]) == ("talk-1", 4)
    first = run_on_filled("sessions", "--limit", "1")
    assert "more with --after " in first.err


def test_services_are_a_table(run_on_filled: Run) -> None:
    head, *rows = run_on_filled("services", *SINCE).out.splitlines()
    assert head.split() == ["SERVICE", "SPANS", "TRACES", "ERRORS", "P50", "P95", "TOKENS", "COST"]
    assert [row.split()[:4] for row in rows] == [
        ["assistant", "3", "1", "1"],
        ["model-server", "2", "2", "0"],
    ]
    assert run_on_filled("services", "--since", "1h").out.splitlines()[1].split()[:2] == [
        "assistant",
        "0",
    ]
    operations = run_on_filled("services", "model-server", *SINCE).out.splitlines()
    assert [row.split()[0] for row in operations] == ["OPERATION", "generate", "tick"]
    found = run_on_filled("services", *SINCE, "--json").lines
    assert [(each["group"], each["span_count"]) for each in found] == [
        ({"service_name": "assistant"}, 3),
        ({"service_name": "model-server"}, 2),
    ]


def test_costs_are_a_table(run_on_filled: Run) -> None:
    head, row = run_on_filled("costs", *SINCE).out.splitlines()
    assert head.split()[:4] == ["PROVIDER", "MODEL", "CALLS", "UNPRICED"]
    assert head.split()[4:] == ["PROMPT", "COMPLETION", "TOKENS", "COST"]
    assert row.split() == ["acme", "large", "1", "0", "1,200", "34", "1,234", "$0.0012"]
    by_user = run_on_filled("costs", *SINCE, "--by", "user", "--bucket", "1d").out.splitlines()[1]
    assert by_user.split()[:3] == ["2026-07-01", "00:00:00.000", "ada"]
    (summary,) = run_on_filled("costs", *SINCE, "--json").lines
    assert summary["group"] == {"provider": "acme", "model": "large"}
    assert run_on_filled("costs").out == "none\n"


def test_buckets_may_be_of_the_calendar_and_filled(run_on_filled: Run) -> None:
    asked = ["--since", "2026-07-01", "--until", "2026-09-01"]
    asked += ["--bucket", "month", "--time-zone", "cet"]
    months = ["2026-06-30T22:00:00Z", "2026-07-31T22:00:00Z", "2026-08-31T22:00:00Z"]
    costs = run_on_filled("costs", *asked, "--fill", "zero", "--json").lines
    assert [(one["timestamp"], one["total_tokens"]) for one in costs] == [
        (months[0], 1234),
        (months[1], 0),
        (months[2], 0),
    ]
    series = ["requests", "--aggregation", "sum", "--fill", "previous", "--json"]
    points = run_on_filled("metrics", *series, *asked).lines
    assert [(one["timestamp"], one["value"]) for one in points] == [(at, 60) for at in months]
    _, *rows = run_on_filled("services", *asked, "--fill", "null").out.splitlines()
    assert [row.split()[:4] for row in rows] == [
        ["2026-06-30", "22:00:00.000", "assistant", "3"],
        ["2026-06-30", "22:00:00.000", "model-server", "2"],
        ["2026-07-31", "22:00:00.000", "assistant", "0"],
        ["2026-07-31", "22:00:00.000", "model-server", "0"],
        ["2026-08-31", "22:00:00.000", "assistant", "0"],
        ["2026-08-31", "22:00:00.000", "model-server", "0"],
    ]


def test_logs_are_a_table(run_on_filled: Run) -> None:
    result = run_on_filled("logs", "--level", "error")
    _, line = result.out.splitlines()
    # Neither the terminal nor rich takes what was logged for an order.
    assert " ".join(line.split()) == (
        f"2026-07-01 12:00:01.000 ERROR assistant {TRACE} the model [bold]gave up[/bold]\ufffd[31m"
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--text", '"gave up"'], [17]),
        (["--level", "17"], [17]),
        (["--trace", TRACE], [17, 9]),
        (["--trace", TRACE[:8]], [17, 9]),
        (["--trace", TRACE[:9].upper()], [17, 9]),
        (["--trace", f"{TRACE[:8]}-{TRACE[8:11]}"], [17, 9]),
        (["--trace", TRACE[:8], "--span", "00000000000000A1"], [9]),
        (["--contains", "gave U", *SINCE], [17]),
        (["--trace", TRACE, "--span", "00000000000000a1"], [9]),
        (["-a", "attempt=3"], [17]),
        (["--service", "assistant", "--until", "2026-07-01T12:00:01"], [9]),
    ],
)
def test_filters_of_logs(run_on_filled: Run, options: list[str], found: list[int]) -> None:
    result = run_on_filled("logs", "--json", *options)
    assert result.code == 0, result.err
    assert [line["severity_number"] for line in result.lines] == found


def test_logs_as_json_are_whole(run_on_filled: Run) -> None:
    newest = run_on_filled("logs", "--json").lines[0]
    assert newest["event_name"] == "done"
    assert newest["body_json"] == {"size": 5}
    assert newest["resource_attributes"] == {"service.name": "assistant"}


def test_metrics_are_a_table(run_on_filled: Run) -> None:
    _, line = run_on_filled("metrics").out.splitlines()
    assert " ".join(line.split()) == "requests counter delta {request} assistant Requests served"
    assert run_on_filled("metrics", "--json", "--type", "gauge").lines == []


def test_metric_over_time(run_on_filled: Run) -> None:
    series = ["requests", "--aggregation", "sum", "--by", "model", "--bucket", "2m"]
    times = ["--since", "2026-07-01T12:00", "--until", "2026-07-01T13:00"]
    result = run_on_filled("metrics", *series, *times)
    title, _, *rows = result.out.splitlines()
    assert title == "requests, sum in {request}, assistant (counter)"
    assert [row.split() for row in rows] == [
        ["2026-07-01", "12:00:00.000", "30", "large"],
        ["2026-07-01", "12:02:00.000", "30", "large"],
    ]
    points = run_on_filled("metrics", *series, *times, "--json").lines
    assert [(point["timestamp"], point["value"], point["group"]) for point in points] == [
        ("2026-07-01T12:00:00Z", 30, {"model": "large"}),
        ("2026-07-01T12:02:00Z", 30, {"model": "large"}),
    ]


def test_metrics_of_a_name_over_time(filled_url: str, run_on_filled: Run) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(filled_url))
    with StoragePool(config) as pool, pool.unit_of_work() as uow:
        writer = CopyWriter(uow)
        named = {"name": "jobs", "metric_type": "counter", "temporality": "delta", "unit": "1"}
        services = ("gateway", "worker")
        writer.write_metrics({**named, "service_name": service} for service in services)
        at = datetime(2026, 7, 1, 12, tzinfo=UTC)
        writer.write_data_points(
            {"metric_id": metric.id, "timestamp": at, "value": 4.0}
            for metric in uow.metrics.get_by_name("jobs")
        )
        uow.commit()
        metric_ids = [metric.id for metric in uow.metrics.get_by_name("jobs")]
    try:
        series = ["jobs", "--aggregation", "sum", "--since", "2026-07-01", "--until", "2026-07-02"]
        title, _, row = run_on_filled("metrics", *series, "--merge").out.splitlines()
        assert title == "jobs, sum in 1, gateway, worker (counter, 2 metrics)"
        assert row.split()[-1] == "8"
        (point,) = run_on_filled("metrics", *series, "--merge", "--json").lines
        assert (point["name"], point["metric_id"], point["service_name"]) == ("jobs", None, None)
        by_service = run_on_filled("metrics", *series, "--merge", "--by", "service_name", "--json")
        assert [point["group"]["service_name"] for point in by_service.lines] == [*services]
        of_one = run_on_filled("metrics", *series, "--merge", "--service", "worker", "--json")
        assert [point["value"] for point in of_one.lines] == [4]
        assert len(run_on_filled("metrics", *series, "--json").lines) == 2
    finally:
        with StoragePool(config) as pool, pool.engine.begin() as connection:
            for table, key in ((MetricDataPoint, "metric_id"), (Metric, "id")):
                connection.execute(delete(table).where(getattr(table, key).in_(metric_ids)))


def test_long_numbers_keep_their_digits() -> None:
    from observatory_storage.cli.json_values import json_value

    shown = orjson.dumps(json_value({"a": 2**70, "b": Decimal("1E-20"), "c": [1.0]}))
    assert shown == b'{"a":1180591620717411303424,"b":0.00000000000000000001,"c":[1.0]}'
