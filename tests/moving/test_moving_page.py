"""The programs of docs/moving.md store what exports of other tools have."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from observatory_storage import StoragePool, Trace, TraceSpan
from tests.moving import exports
from tests.pages import DOCS, blocks

PROGRAMS = dict(
    zip(("langfuse", "phoenix", "mlflow"), blocks(DOCS / "moving.md", "python"), strict=True)
)
Move = Callable[[str, list[dict[str, Any]]], None]


@pytest.fixture
def move(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Writes an export where the program of the page reads it, and runs the program."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "observations_v2").mkdir()

    def move(tool: str, lines: list[dict[str, Any]]) -> None:
        file = "observations_v2/1.jsonl" if tool == "langfuse" else f"{tool}.jsonl"
        Path(file).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        exec(compile(PROGRAMS[tool], "moving.md", "exec"), {"__name__": "page"})

    return move


def stored(pool: StoragePool, trace_id: str = exports.TRACE) -> tuple[Trace, list[TraceSpan]]:
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_id)
        assert trace
        spans = uow.traces.get_spans(trace, with_events=True)
        for span in spans:
            if span.model:
                messages = uow.traces.get_messages(span)
                assert [one.text for one in messages.input] == [exports.QUESTION[0]["content"]]
                assert [one.text for one in messages.output] == [exports.ANSWER["content"]]
        found = uow.traces.search_text("capital of france")
    assert {one.trace_id for one in found} == {trace.id}
    return trace, spans


def check(trace: Trace, spans: list[TraceSpan]) -> None:
    """What all three exports say alike."""
    by_operation = {span.operation: span for span in spans}
    agent, call, tool = (by_operation[name] for name in ("invoke_agent", "chat", "execute_tool"))
    assert (agent.parent_span_id, agent.span_id) == (None, exports.AGENT)
    assert (call.parent_span_id, call.span_id) == (exports.AGENT, exports.CALL)
    assert (call.model, call.prompt_tokens, call.completion_tokens) == ("gpt-4o", 14, 2)
    assert (call.user_id, call.session_id) == ("ada", "talk-1")
    assert (tool.status, tool.status_message) == ("error", "no such map")
    assert trace.trace_id == exports.TRACE
    assert (trace.span_count, trace.error_count, trace.total_tokens) == (3, 1, 16)
    assert {span.service_name for span in spans} == {"assistant"}


def test_observations_of_langfuse(move: Move, pool: StoragePool) -> None:
    for _ in range(2):  # the second run changes nothing
        move("langfuse", exports.langfuse())
        trace, spans = stored(pool)
        check(trace, spans)
        (call,) = (span for span in spans if span.model)
        assert trace.total_cost_usd == Decimal("0.000055")
        assert (call.environment, call.prompt_name, call.ttft_ms) == ("production", "capital", 250)
        assert call.attributes["langfuse.observation.metadata"] == {"plan": "free"}


def test_observations_of_older_sdks(move: Move, pool: StoragePool) -> None:
    trace, agent, call = "my trace", "2f0b7a51-98a4-4c39-8f0a-7e1f5f0a9d11", "generation 1"
    move("langfuse", exports.langfuse(trace, agent, call))
    _, spans = stored(pool, trace)
    by_operation = {span.operation: span for span in spans}
    assert by_operation["chat"].parent_span_id == by_operation["invoke_agent"].span_id


def test_observations_without_their_traces(move: Move, pool: StoragePool) -> None:
    of_traces = ("user_id", "session_id", "trace_name", "tags", "release", "bookmarked", "public")
    older = [
        {key: value for key, value in observation.items() if key not in of_traces}
        for observation in exports.langfuse()
    ]
    move("langfuse", older)
    trace, spans = stored(pool)
    assert trace.total_tokens == 16
    assert {(span.user_id, span.environment) for span in spans} == {(None, "production")}


def test_spans_of_phoenix(move: Move, pool: StoragePool) -> None:
    for _ in range(2):
        move("phoenix", exports.phoenix())
        trace, spans = stored(pool)
        check(trace, spans)
        (call,) = (span for span in spans if span.model)
        assert call.provider == "openai"
        assert call.start_time.microsecond == 123456
        (failed,) = (span for span in spans if span.events)
        assert failed.error_type == "KeyError"


@pytest.mark.parametrize("version", [3, 4])
def test_traces_of_mlflow(move: Move, pool: StoragePool, version: int) -> None:
    for _ in range(2):
        move("mlflow", [exports.mlflow(version)])
        trace, spans = stored(pool)
        check(trace, spans)
        (call,) = (span for span in spans if span.model)
        assert (call.provider, call.start_ns, call.end_ns) == ("openai", 789, 790)
        assert call.duration_us == 1_000_000
