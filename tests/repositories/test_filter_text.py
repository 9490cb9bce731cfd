"""Filters written as text mean the same as filters with keywords, and mistakes are pointed at."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from observatory_storage import (
    CopyWriter,
    Exists,
    LogFilters,
    MetricFilters,
    Not,
    OneOf,
    Prefix,
    SessionFilters,
    SpanFilters,
    StoragePool,
    TraceFilters,
    ValidationError,
)
from observatory_storage.errors import shown
from tests.repositories.samples import START, a_span

DAY = datetime(2026, 1, 1, tzinfo=UTC)
NEXT_DAY = DAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        (" \n", {}),
        ("service:chat status:error", {"service_name": "chat", "status": "error"}),
        ("service_name=chat", {"service_name": "chat"}),
        ("user:ada session:s1", {"user_id": "ada", "session_id": "s1"}),
        (
            "gen_ai_operation:chat agent:planner tool:search prompt:greeting -error_type:timeout",
            {
                "gen_ai_operation": "chat",
                "agent_name": "planner",
                "tool_name": "search",
                "prompt_name": "greeting",
                "error_type": Not("timeout"),
            },
        ),
        ('service:"two words"', {"service_name": "two words"}),
        (r'service:"a \"b\" \\ C:\temp"', {"service_name": r'a "b" \ C:\temp'}),
        ("service:http://a?b=c", {"service_name": "http://a?b=c"}),
        ("service:chat,search", {"service_name": ["chat", "search"]}),
        ('service:"a,b",c', {"service_name": ["a,b", "c"]}),
        ("model:gpt-4o*", {"model": Prefix("gpt-4o")}),
        ("model:gpt-4o*,o1", {"model": OneOf(Prefix("gpt-4o"), "o1")}),
        ('model:"gpt 4"*', {"model": Prefix("gpt 4")}),
        ('model:"gpt-4o*"', {"model": "gpt-4o*"}),
        ("model:*", {"model": Exists()}),
        ("-environment:test", {"environment": Not("test")}),
        ("environment!=test,dev", {"environment": Not("test", "dev")}),
        ("-environment:test environment!=dev", {"environment": Not("test", "dev")}),
        ("-model:gpt*", {"model": Not(Prefix("gpt"))}),
        ("-model!=a", {"model": "a"}),
        ("has:session -has:user", {"session_id": Exists(), "user_id": Not(Exists())}),
        ("has:session,user", {"session_id": Exists(), "user_id": Exists()}),
        ("duration>=2s", {"min_duration_us": 2_000_000}),
        ("duration>2s", {"min_duration_us": Decimal("2000000.001")}),
        ("duration<1.5ms", {"max_duration_us": Decimal("1499.999")}),
        ("duration<=1h", {"max_duration_us": timedelta(hours=1)}),
        ("tokens>10 tokens<=20", {"min_tokens": 11, "max_tokens": 20}),
        ("tokens:0", {"min_tokens": 0, "max_tokens": 0}),
        ("cost>=0.01", {"min_cost_usd": Decimal("0.01")}),
        ("min_cost_usd:0.01", {"min_cost_usd": Decimal("0.01")}),
        ("start>=2026-01-01", {"start_time": DAY}),
        ("start>2026-01-01", {"start_time": DAY + timedelta(microseconds=1)}),
        ("start<2026-01-01T02:00+02:00", {"end_time": DAY}),
        ("start<=2026-01-01", {"end_time": DAY + timedelta(microseconds=1)}),
        ("since:2026-01-01 until:2026-01-01", {"start_time": DAY, "end_time": DAY}),
        ("end>=2026-01-01 end<2026-01-02", {"ended_after": DAY, "ended_before": NEXT_DAY}),
        ("root:true", {"root": True}),
        ("attributes.tier:gold", {"attributes": {"tier": "gold"}}),
        ("attributes.http.code:500,503", {"attributes": {"http.code": OneOf(500, 503)}}),
        ('attributes.a:"5" attributes.b:true', {"attributes": {"a": "5", "b": True}}),
        ('attributes."a b:c":-1.5', {"attributes": {"a b:c": -1.5}}),
        ("attributes.a:x* -attributes.b:1", {"attributes": {"a": Prefix("x"), "b": Not(1)}}),
        ("-attributes.b:1 attributes.b!=2", {"attributes": {"b": Not(1, 2)}}),
        ("has:attributes.a,attributes.b", {"attributes": {"a": Exists(), "b": Exists()}}),
        ("refund service:a policy", {"service_name": "a", "text": "refund policy"}),
        ('"quoted text" -sea river* or lake', {"text": '"quoted text" -sea river* or lake'}),
        ('"https://a/b?c=1"', {"text": '"https://a/b?c=1"'}),
        ("a->b it's", {"text": "a->b it's"}),
    ],
)  # fmt: skip
def test_a_text_means_the_same_as_keywords(text: str, fields: dict[str, Any]) -> None:
    assert TraceFilters.parse(text) == TraceFilters(**fields)


@pytest.mark.parametrize(
    ("kind", "text", "fields"),
    [
        (SpanFilters, "trace:abc kind:client", {"trace_id": "abc", "kind": "client"}),
        (SpanFilters, "name:POST*", {"name": Prefix("POST")}),
        (LogFilters, "level:warn has:trace", {"min_severity": "warn", "trace_id": Exists()}),
        (LogFilters, "level>=17 timed out", {"min_severity": 17, "text": "timed out"}),
        (LogFilters, "severity:17", {"min_severity": 17}),
        (LogFilters, 'contains:"a*b" since:2026-01-01', {"contains": "a*b", "start_time": DAY}),
        (MetricFilters, "metric_type:gauge", {"metric_type": "gauge"}),
        (SessionFilters, "user:ada,bob", {"user_id": ["ada", "bob"]}),
    ],
)  # fmt: skip
def test_other_filters_are_written_as_well(kind: Any, text: str, fields: dict[str, Any]) -> None:
    assert kind.parse(text) == kind(**fields)


def test_a_cost_above_a_number_has_all_its_digits() -> None:
    bounds = TraceFilters.parse("cost>0.01 cost<0.02")
    assert isinstance(bounds.min_cost_usd, Decimal)
    assert isinstance(bounds.max_cost_usd, Decimal)
    assert Decimal("0.01") < bounds.min_cost_usd < Decimal(f"0.01{'0' * 50}1")
    assert Decimal(f"0.01{'9' * 50}") < bounds.max_cost_usd < Decimal("0.02")


def test_times_may_be_ago() -> None:
    start = TraceFilters.parse("since:2h").start_time
    assert start is not None
    assert abs(datetime.now(UTC) - timedelta(hours=2) - start) < timedelta(minutes=1)


def test_fields_may_be_given_beside_the_text() -> None:
    assert TraceFilters.parse("service:a", limit=3) == TraceFilters(service_name="a", limit=3)
    with pytest.raises(ValidationError, match="is set by the text too") as refused:
        TraceFilters.parse("service:a", service_name="b")
    assert refused.value.field == "service_name"
    with pytest.raises(TypeError, match="did you mean 'model'"):
        TraceFilters.parse("service:a", modle="b")


@pytest.mark.parametrize(
    ("kind", "text", "marked", "rule"),
    [
        (TraceFilters, "service:chat statis:error", "statis", "did you mean 'status'?"),
        (TraceFilters, "servce_name:chat", "servce_name", "did you mean 'service_name'?"),
        (TraceFilters, "https://example.com", "https", "stand in quotes"),
        (TraceFilters, "zzz:1", "zzz", "there are service, operation, status,"),
        (TraceFilters, "level:error", "level", "there is no field 'level'"),
        (TraceFilters, "limit:5", "limit", "there is no field 'limit'"),
        (TraceFilters, "has:sesion", "sesion", "did you mean 'session'?"),
        (TraceFilters, "has:cost", "cost", "has takes fields of text and attributes"),
        (TraceFilters, "has:root", "root", "has takes fields of text and attributes"),
        (TraceFilters, "a duration>2", "2", "'2' is not a duration such as 250ms"),
        (TraceFilters, "start>=yesterday", "yesterday", "is neither a time such as"),
        (TraceFilters, "tokens>1.5", "1.5", "is not a whole number"),
        (TraceFilters, "cost>cheap", "cheap", "is not a number"),
        (TraceFilters, "cost>NaN", "NaN", "is not a number"),
        (TraceFilters, "root:yes", "yes", "is not true or false"),
        (TraceFilters, "status:bad x", "status:bad", "must be one of unset, ok, error"),
        (TraceFilters, "cost<0", "cost<0", "must be from 0"),
        (TraceFilters, "start>9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999", "range"),
        (TraceFilters, "service: chat", " ", "a value is missing"),
        (TraceFilters, "service:a,", "", "a value is missing"),
        (TraceFilters, 'a "open', '"open', "the quote is not closed"),
        (TraceFilters, 'service:"open', '"open', "the quote is not closed"),
        (TraceFilters, '"a"b', "b", "a space is missing"),
        (TraceFilters, 'service:"a"b', "b", "a space is missing"),
        (TraceFilters, "service:a or service:b", "or", "several values are written as field:a,b"),
        (TraceFilters, "or river", "or", "or stands between two words"),
        (TraceFilters, "service:a service:b", "service:b", "is given twice"),
        (TraceFilters, "model:a* -model:ab", "-model:ab", "is given twice"),
        (TraceFilters, "attributes.a:1 attributes.a:2", "attributes.a:2", "is given twice"),
        (TraceFilters, "since:1h start>2h", "start>2h", "is given twice"),
        (TraceFilters, "-duration>2s", "-duration>2s", "takes one value and no negation"),
        (TraceFilters, "-root:true", "-root:true", "takes one value and no negation"),
        (TraceFilters, "duration>1s,2s", "duration>1s,2s", "takes one value and no negation"),
        (TraceFilters, "model>2", ">", "model takes only : = and !="),
        (TraceFilters, "attributes.a<2", "<", "attributes.a takes only : = and !="),
        (TraceFilters, "start:2h", ":", "start takes only > >= < and <="),
        (LogFilters, "level:loud", "level:loud", "must be 1 to 24 or one of"),
        (LogFilters, "cost>1", "cost", "there is no field 'cost'"),
        (LogFilters, "trace:a*", "trace:a*", "must have a prefix that is text"),
        (MetricFilters, "cpu", "cpu", "there is no text to search"),
        (SpanFilters, f"{'x ' * 60}statis:error {'y ' * 60}", "statis", "there is no field"),
    ],
)  # fmt: skip
def test_a_mistake_is_pointed_at(kind: Any, text: str, marked: str, rule: str) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.parse(text)
    error = refused.value
    said, line, caret = error.rule.split("\n")
    assert rule in said
    assert error.field == "filters"
    assert error.position is not None
    assert text[error.position :].startswith(marked)
    assert line[caret.index("^") : caret.rindex("^") + 1].rstrip() == marked.strip()
    assert len(line) <= 110
    assert pickle.loads(pickle.dumps(error)).position == error.position


def test_only_text_is_parsed() -> None:
    with pytest.raises(ValidationError) as refused:
        TraceFilters.parse(None)  # type: ignore[arg-type]  # what is tried here
    assert (refused.value.field, refused.value.position) == ("filters", None)


@given(st.text(alphabet='ab:=<>!-*,."\\ \nor', max_size=30))
@example("has:")
@example("has:*")
@example("-:a")
@example('attributes."":1')
def test_any_text_is_understood_or_pointed_at(text: str) -> None:
    error = _error_of(text)
    if error is not None and error.position is not None:
        assert 0 <= error.position <= len(text)
        assert shown(text) in str(error)


def _error_of(text: str) -> ValidationError | None:
    try:
        TraceFilters.parse(text)
    except ValidationError as error:
        return error
    return None


@given(st.text(max_size=20).filter(str.strip))
def test_any_value_can_be_written_in_quotes(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert TraceFilters.parse(f'service:"{quoted}"') == TraceFilters(service_name=value)
    assert TraceFilters.parse(f'attributes."{quoted}":"{quoted}"*') == TraceFilters(
        attributes={value: Prefix(value)}
    )


def test_bounds_of_ranges_are_exact(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [
            a_span(number, number, total_tokens=number, total_cost_usd=Decimal(number) / 100)
            | {"end_time": START + timedelta(seconds=number)}
            for number in (1, 2, 3)
        ]
    )
    with pool.unit_of_work() as uow:
        for name, two in (("duration", "2s"), ("tokens", "2"), ("cost", "0.02"), ("cost", "2e-2")):
            for operator, expected in (
                (">", {3}), (">=", {2, 3}), ("<", {1}), ("<=", {1, 2}), (":", {2})
            ):  # fmt: skip
                filters = SpanFilters.parse(f"{name}{operator}{two}")
                found = {span.total_tokens for span in uow.traces.list_spans(filters)}
                assert found == expected, filters


@pytest.mark.parametrize(
    ("text", "caret"),
    [
        ("user:数据库 statis:error", " " * 12 + "^" * 6),
        ("user:😀 statis:error", " " * 8 + "^" * 6),
        ("user:e\u0301 statis:error", " " * 7 + "^" * 6),
        ("服务:chat", "^" * 4),
    ],
)
def test_a_mistake_is_pointed_at_beside_wide_characters(text: str, caret: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TraceFilters.parse(text)
    assert str(refused.value).splitlines()[-1] == f"  {caret}"
