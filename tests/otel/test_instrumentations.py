"""Instrumentations of two vendors' SDKs, live: what the vendor said is in the typed columns.

The SDKs call a server on loopback that answers as the vendors' APIs do. What the instrumentations
report goes through the exporters of this package.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from observatory_storage import (
    LogFilters,
    Message,
    MessagePart,
    MetricFilters,
    SpanFilters,
    SpanMessages,
    StoragePool,
)
from tests.otel.instrumented import INSTRUMENTATIONS, Instrumentation, Observed, observe
from tests.recordings.record.calls import FIRST_CHUNK_MS, Call
from tests.recordings.record.programs.conversation import (
    ANSWER,
    ARGUMENTS,
    ERROR,
    INSTRUCTIONS,
    QUESTION,
    REFUSED_QUESTION,
    RESULT,
    TOOL,
    TOOL_DESCRIPTION,
    WORDS,
)

FAILED = {"error", "unreachable"}


@pytest.mark.parametrize("by", INSTRUMENTATIONS, ids=lambda each: each.name)
def test_what_the_vendor_said_is_in_typed_columns(by: Instrumentation, pool: StoragePool) -> None:
    observed = observe(by, pool)
    check_spans(observed)
    check_models(observed)
    check_tokens(observed)
    check_finish_reasons(observed)
    check_errors(observed)
    check_first_chunks(observed)
    check_messages(observed)
    check_search(observed)
    check_metrics(observed)
    check_log_records(observed)


def check_spans(observed: Observed) -> None:
    counts = {name: len(spans) for name, spans in observed.spans.items()}
    answered = {name: len(calls) for name, calls in observed.answers.items()}
    assert counts == answered | {"unreachable": 1}
    assert all(span.parent_span_id for spans in observed.spans.values() for span in spans)


def check_models(observed: Observed) -> None:
    for name, spans in observed.spans.items():
        for span in spans:
            assert span.provider == observed.by.vendor
            assert span.operation == ("embeddings" if name == "embedding" else "chat"), name
    for name, call, span in observed.calls():
        answering = call.response_model if call.status == 200 else None
        if "requested model" in observed.by.lacks:
            assert span.model == (answering or call.model), name
        else:
            assert (span.model, span.response_model) == (call.model, answering), name


def check_tokens(observed: Observed) -> None:
    for name, call, span in observed.calls():
        if name in FAILED:
            assert (span.prompt_tokens, span.completion_tokens) == (None, None)
            continue
        total = call.prompt_tokens + call.completion_tokens
        assert span.prompt_tokens == call.prompt_tokens, name
        assert (span.completion_tokens or 0) == call.completion_tokens, name
        assert span.total_tokens == total, name
        details = {
            "prompt_cache_read": call.cached_tokens,
            "prompt_cache_write": call.cache_write_tokens,
            "completion_reasoning": call.reasoning_tokens,
        }
        counted = {key: count for key, count in details.items() if count}
        assert (span.token_details or {}) == counted, name


def check_finish_reasons(observed: Observed) -> None:
    after_answer, for_tool = observed.by.reasons
    for name, call, span in observed.calls():
        silent = name in FAILED or name == "embedding" or name in observed.by.unreasoned
        reason = None if silent else for_tool if call.tool else after_answer
        assert span.finish_reason == reason, name


def check_errors(observed: Observed) -> None:
    errors = {
        name: span.error_type
        for name, spans in observed.spans.items()
        for span in spans
        if span.status == "error" or span.error_type or span.status_message
    }
    vendor = observed.by.vendor
    raised = f"{vendor}.RateLimitError", f"{vendor}.APIConnectionError"
    refusal, loss = observed.by.errors or raised
    assert errors == {"error": refusal, "unreachable": loss}
    (refused,), (lost,) = observed.spans["error"], observed.spans["unreachable"]
    if "message of errors" not in observed.by.lacks:
        assert ERROR in (refused.status_message or "")
        assert "Connection error." in (lost.status_message or "")


def check_first_chunks(observed: Observed) -> None:
    timed = set()
    for name, call, span in observed.calls():
        if call.first_chunk_ms is None or name in observed.by.untimed:
            assert span.ttft_ms is None, name
            continue
        assert span.ttft_ms is not None, name
        assert span.duration_us is not None
        # Anthropic's SDK starts the clock of the first chunk before its span. A wrong unit would be
        # off by a thousand.
        is_earlier = observed.by.instrumentor is None
        most = 1000 * FIRST_CHUNK_MS if is_earlier else span.duration_us / 1000
        assert FIRST_CHUNK_MS <= span.ttft_ms <= most, name
        timed.add(name)
    streams = {name for name in observed.answers if "stream" in name}
    assert timed == streams - observed.by.untimed


def check_messages(observed: Observed) -> None:
    with observed.pool.unit_of_work() as uow:
        for name, call, span in observed.calls():
            if name != "embedding":
                messages = uow.traces.get_messages(span)
                first = span is observed.spans[name][0]
                said = conversation(name, call, first=first, by=observed.by)
                assert spoken(messages) == said, name


def conversation(scenario: str, call: Call, *, first: bool, by: Instrumentation) -> list[str]:
    """What was said in the call, one line each, as far as it is reported."""
    answers = scenario not in by.unanswered
    lines = [f"system: {INSTRUCTIONS}"]
    lines.append(f"user: {REFUSED_QUESTION if scenario == 'error' else QUESTION}")
    called = f"assistant: {TOOL}({ARGUMENTS})"
    if not first:
        lines += [called, f"result: {RESULT}"]
    if answers and call.tool:
        lines.append(called)
    elif answers and call.answer:
        lines.append(f"assistant: {ANSWER}")
    if "tool" in scenario and "tools" not in by.lacks:
        lines.append(f"{TOOL}: {TOOL_DESCRIPTION}")
    return lines


def spoken(messages: SpanMessages) -> list[str]:
    """The messages, one line for each part, wherever the instructions stand."""
    given = Message("system", messages.instructions)
    return [
        *(line(each.role, part) for each in (given, *messages.input) for part in each.parts),
        *(line(each.role, part) for each in messages.output for part in each.parts),
        *(f"{tool.name}: {tool.description}" for tool in messages.tools),
    ]


def line(role: str, part: MessagePart) -> str:
    if part.type == "tool_call":
        assert "timetable1" in (part.id or "")
        return f"{role}: {part.name}({part.arguments})"
    if part.type == "tool_result":
        assert "timetable1" in (part.id or "")
        return f"result: {part.result}"
    return f"{role}: {part.text}"


def check_search(observed: Observed) -> None:
    starts = [span.start_time for spans in observed.spans.values() for span in spans]
    filters = SpanFilters(start_time=min(starts), end_time=max(starts) + timedelta(seconds=1))
    with observed.pool.unit_of_work() as uow:
        found = {key: len(uow.traces.search_text(word, filters)) for key, word in WORDS.items()}
    assert all(found[key] for key in ("question", "answer", "arguments", "result")), found


def check_metrics(observed: Observed) -> None:
    day = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
    sums: Counter[str] = Counter()
    with observed.pool.unit_of_work() as uow:
        names = {metric.name for metric in uow.metrics.list(MetricFilters())}
        for metric in uow.metrics.get_by_name("gen_ai.client.token.usage"):
            for point in uow.metrics.get_data_points(metric.id, *day):
                sums[point.attributes["gen_ai.token.type"]] += int(point.sum or 0)
    if "metrics" in observed.by.lacks:
        assert not names
        return
    calls = [call for calls in observed.answers.values() for call in calls]
    assert sums == {
        "input": sum(call.prompt_tokens for call in calls),
        "output": sum(call.completion_tokens for call in calls),
    }
    assert "gen_ai.client.operation.duration" in names


def check_log_records(observed: Observed) -> None:
    spans = [span for spans in observed.spans.values() for span in spans]
    if "EVENT_ONLY" not in observed.by.settings.values():
        spans = []
    with observed.pool.unit_of_work() as uow:
        records = uow.logs.list(LogFilters(limit=100))
    told = {(record.trace_id, record.span_id) for record in records}
    assert told == {(span.trace_id, span.span_id) for span in spans if span.operation == "chat"}
    assert {record.event_name for record in records} <= {
        "gen_ai.client.inference.operation.details"
    }
