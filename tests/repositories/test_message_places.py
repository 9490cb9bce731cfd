"""Prompts and completions in events and log records are found with their span, and are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    Message,
    MessagePart,
    NotFound,
    PostgresConfig,
    SpanFilters,
    SpanMessages,
    StorageConfig,
    StoragePool,
    TraceFilters,
    ValidationError,
    build_partition_indexes,
)
from tests.repositories.plans import plans_of, walk_first
from tests.repositories.samples import DAY, SECOND, Row, a_log, a_span, span_key, trace_key
from tests.repositories.slices import index_slices
from tests.servers import Server

# Of late, for partitions of a day: the first is closed, the second is not.
BEGIN = (datetime.now(UTC) - 20 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
DETAILS = "gen_ai.client.inference.operation.details"


def said(word: str) -> dict[str, Any]:
    return {
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": f"ask {word}"}]}
        ],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": "done"}]}
        ],
    }


# Where a word stands, by the word: the columns of an event or of a log record of the span.
EVENTS: dict[str, Row] = {
    "eventuser": {"name": "gen_ai.user.message", "attributes": {"content": "tell eventuser"}},
    "eventchoice": {
        "name": "gen_ai.choice",
        "attributes": {"message": '[{"text": "it is eventchoice"}]', "finish_reason": "stop"},
    },
    "eventtool": {"name": "gen_ai.choice", "attributes": {"tool.result": "gives eventtool"}},
    "eventdetails": {"name": DETAILS, "attributes": said("eventdetails")},
}
LOGS: dict[str, Row] = {
    "logdetails": {"event_name": DETAILS, "attributes": said("logdetails")},
    "logbody": {
        "event_name": "gen_ai.user.message",
        "body_json": {"role": "user", "content": "tell logbody"},
    },
    "logtool": {
        "event_name": "gen_ai.choice",
        "body_json": {
            "message": {
                "tool_calls": [
                    {"id": "c", "function": {"name": "f", "arguments": '{"a": "x logtool"}'}}
                ]
            }
        },
    },
    "logtext": {"event_name": "gen_ai.user.message", "body": "tell logtext"},
    "logolder": {
        "attributes": {"event.name": "gen_ai.choice"},
        "body_json": {"message": {"content": "it is logolder"}},
    },
    "logclaude": {
        "body": "claude_code.user_prompt",
        "attributes": {"event.name": "user_prompt", "prompt": "tell logclaude"},
    },
    "logcodex": {
        "attributes": {"event.name": "codex.tool_result", "output": "gives logcodex"},
    },
}
# What is no content of the span, by the word.
OTHERS: dict[str, Row] = {
    "plainline": {"body": "retry plainline"},
    "otherevent": {"event_name": "login", "attributes": {"user": "otherevent"}},
    "othermodel": {"event_name": DETAILS, "attributes": {"gen_ai.request.model": "othermodel"}},
    "toolate": {"event_name": DETAILS, "attributes": said("toolate"), "offset": 30 * 60 * 60},
    "tooearly": {"event_name": DETAILS, "attributes": said("tooearly"), "offset": -2 * 60 * 60},
    "nospan": {"event_name": DETAILS, "attributes": said("nospan"), "span_id": None},
    "notrace": {"event_name": DETAILS, "attributes": said("notrace"), "trace_id": None},
}
NUMBERS = {word: number for number, word in enumerate([*EVENTS, *LOGS, *OTHERS], start=1)}


def start_of(word: str, day: int) -> datetime:
    return BEGIN + day * DAY + DAY / 2 + NUMBERS[word] * SECOND


def key_of(word: str, day: int) -> tuple[str, str]:
    number = NUMBERS[word] + 100 * day
    return trace_key(number), span_key(number)


def rows() -> tuple[list[Row], list[Row]]:
    spans, logs = [], []
    for day in (0, 1):
        for word, first in NUMBERS.items():
            (trace_id, span_id), start = key_of(word, day), start_of(word, day)
            number = first + 100 * day
            events = [{"timestamp": start, **EVENTS[word]}] if word in EVENTS else []
            spans.append(
                a_span(
                    number, number, start, attributes={"gen_ai.prompt.name": word}, events=events
                )
            )
            if word not in EVENTS:
                given = {**LOGS, **OTHERS}[word]
                time = start + given.get("offset", 0.5) * SECOND
                named = {"trace_id": trace_id, "span_id": span_id}
                columns = {key: value for key, value in given.items() if key != "offset"}
                logs.append(a_log(number, time, **{**named, **columns}))
    return spans, logs


@contextmanager
def store(server: Server, template: str) -> Iterator[StoragePool]:
    with server.database(template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            spans, logs = rows()
            CopyWriter(pool).write_spans(spans)
            CopyWriter(pool).write_logs(logs)
            build_partition_indexes(pool, now=BEGIN + DAY, grace=timedelta(0))
            yield pool


@pytest.fixture(scope="module")
def unsliced(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    with store(postgres_server, migrated_template) as pool:
        yield pool


@pytest.fixture(scope="module")
def sliced(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    with store(postgres_server, migrated_template) as pool:
        assert index_slices(pool, [BEGIN + DAY + DAY / 2, BEGIN + 2 * DAY])
        yield pool


@pytest.fixture
def filled(request: pytest.FixtureRequest) -> StoragePool:
    found: StoragePool = request.getfixturevalue(getattr(request, "param", "unsliced"))
    return found


# Slices are those of the open day; what is found on the closed one does not depend on them.
each_day = pytest.mark.parametrize(
    ("filled", "day"),
    [
        pytest.param("unsliced", 0, id="closed"),
        pytest.param("unsliced", 1, id="open"),
        pytest.param("sliced", 1, id="sliced"),
    ],
    indirect=["filled"],
)


def found(pool: StoragePool, day: int, **asked: Any) -> tuple[set[str], set[str]]:
    """The words whose spans match, and those whose traces do."""
    bounds: dict[str, Any] = {"start_time": BEGIN + day * DAY, "end_time": BEGIN + (day + 1) * DAY}
    by_key = {key_of(word, day): word for word in NUMBERS}
    by_trace = {trace_id: word for (trace_id, _), word in by_key.items()}
    with pool.unit_of_work() as uow:
        spans = uow.traces.list_spans(SpanFilters(**asked, **bounds))
        traces = uow.traces.list(TraceFilters(**asked, **bounds))
        return (
            {by_key[span.trace_id.hex, span.span_id] for span in spans},
            {by_trace[trace.trace_id] for trace in traces},
        )


@each_day
@pytest.mark.parametrize("walked", [1, 1000], ids=["looked up", "read in order"])
@pytest.mark.parametrize("word", [*EVENTS, *LOGS])
def test_words_of_events_and_log_records_find_their_span(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch, word: str, day: int, walked: int
) -> None:
    walk_first(monkeypatch, walked)
    assert found(filled, day, text=word) == ({word}, {word})
    assert found(filled, day, text=f"{word[:6]}* -nothing", contains=word) == ({word}, {word})
    assert found(filled, day, contains=word[1:-1].upper()) == ({word}, {word})


@each_day
@pytest.mark.parametrize("walked", [1, 1000], ids=["looked up", "read in order"])
@pytest.mark.parametrize("word", OTHERS)
def test_other_records_are_no_content_of_the_span(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch, word: str, day: int, walked: int
) -> None:
    walk_first(monkeypatch, walked)
    assert found(filled, day, text=word) == (set(), set())
    assert found(filled, day, contains=word) == (set(), set())


def test_spans_in_the_order_of_their_durations_are_found_too(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        bounds: dict[str, Any] = {"start_time": BEGIN, "end_time": BEGIN + DAY}
        page = uow.traces.list_spans(order_by="-duration_us", text="logdetails", **bounds)
        assert [(span.trace_id.hex, span.span_id) for span in page] == [key_of("logdetails", 0)]


def test_log_records_of_a_closed_day_are_found_by_their_index(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_first(monkeypatch, 1)
    filters = SpanFilters(text="logdetails", start_time=BEGIN, end_time=BEGIN + DAY / 2)
    with filled.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    plans = plans_of(filled, lambda uow: uow.traces.list_spans(filters))
    # A record of the next day may name a span of this one.
    days = {f"logs_p{BEGIN + day * DAY:%Y%m%d}" for day in (0, 1)}
    read = set().union(*(plan.relations("logs") for plan in plans))
    assert read <= days, read


@each_day
def test_messages_are_read_from_wherever_they_stand(filled: StoragePool, day: int) -> None:
    with filled.unit_of_work() as uow:
        for word in EVENTS | LOGS:
            messages = uow.traces.get_messages(*key_of(word, day))
            assert word in json.dumps(messages.to_dict(json=True)), word
        for word in OTHERS:
            assert word not in json.dumps(uow.traces.get_messages(*key_of(word, day)).to_dict())


def test_the_messages_of_a_span_of_a_list(filled: StoragePool) -> None:
    expected = SpanMessages((Message("user", (MessagePart("text", text="tell logbody"),)),))
    trace_id, span_id = key_of("logbody", 0)
    with filled.unit_of_work() as uow:
        (span,) = uow.traces.list_spans(trace_id=trace_id)
        assert uow.traces.get_messages(span) == expected
        (whole,) = uow.traces.get_spans(trace_id)
        assert uow.traces.get_messages(whole) == expected
        assert uow.traces.get_messages(trace_id, span_id) == expected


def test_invalid_arguments_for_messages_are_refused(filled: StoragePool) -> None:
    trace_id, span_id = key_of("logbody", 0)
    with filled.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_id)
        with pytest.raises(ValidationError, match="span_id"):
            uow.traces.get_messages(span, span_id)
        with pytest.raises(ValidationError, match="span_id"):
            uow.traces.get_messages(trace_id)
        with pytest.raises(NotFound):
            uow.traces.get_messages(trace_id, "f" * 16)
