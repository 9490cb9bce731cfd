"""The completion hook: what it takes of a call, and what becomes of it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Span
from opentelemetry.util.genai.completion_hook import CompletionHook
from opentelemetry.util.genai.types import (
    BlobPart,
    FunctionToolDefinition,
    InputMessage,
    Modality,
    OutputMessage,
    TextPart,
    ToolCallRequestPart,
)

from observatory_storage.otel import span_contents
from observatory_storage.otel.completion_hook import PostgresCompletionHook
from observatory_storage.otel.span_contents import SpanContents

ASKED = [InputMessage(role="user", parts=[TextPart("When does the ferry leave?")])]
ANSWERED = [OutputMessage(role="assistant", parts=[TextPart("At seven.")], finish_reason="stop")]


@pytest.fixture
def span() -> Iterator[Span]:
    with TracerProvider().get_tracer("t").start_as_current_span("chat") as span:
        yield span


def key(span: Span) -> tuple[int, int]:
    context = span.get_span_context()
    return context.trace_id, context.span_id


def test_it_is_a_completion_hook() -> None:
    assert isinstance(PostgresCompletionHook(), CompletionHook)


def test_contents_are_held_as_opentelemetrys_attributes_until_they_are_taken(span: Span) -> None:
    contents = SpanContents()
    PostgresCompletionHook().on_completion(
        inputs=ASKED,
        outputs=ANSWERED,
        system_instruction=[TextPart("Be brief.")],
        tool_definitions=[FunctionToolDefinition("timetable", None, {"type": "object"})],
        span=span,
    )
    taken = contents.take(key(span))
    assert {name: json.loads(value) for name, value in taken.items()} == {
        "gen_ai.input.messages": [
            {
                "role": "user",
                "parts": [{"content": "When does the ferry leave?", "type": "text"}],
                "name": None,
            }
        ],
        "gen_ai.output.messages": [
            {
                "role": "assistant",
                "parts": [{"content": "At seven.", "type": "text"}],
                "finish_reason": "stop",
                "name": None,
            }
        ],
        "gen_ai.system_instructions": [{"content": "Be brief.", "type": "text"}],
        "gen_ai.tool.definitions": [
            {
                "name": "timetable",
                "description": None,
                "parameters": {"type": "object"},
                "type": "function",
            }
        ],
    }
    assert contents.take(key(span)) == {}


def test_the_span_itself_gets_no_contents(span: Span) -> None:
    contents = SpanContents()
    PostgresCompletionHook().on_completion(inputs=ASKED, span=span)
    assert not getattr(span, "attributes", None)
    assert contents.take(key(span))


def test_a_process_without_the_exporter_is_told_once(
    span: Span, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(span_contents, "_exporters", [])
    monkeypatch.setattr(span_contents, "_warned", set())
    for _ in range(2):
        PostgresCompletionHook().on_completion(inputs=ASKED, span=span)
    (record,) = caplog.records
    assert "no PostgresSpanExporter" in record.getMessage()


def test_what_is_not_given_is_not_held_and_what_is_given_twice_replaces(span: Span) -> None:
    contents, hook = SpanContents(), PostgresCompletionHook()
    hook.on_completion(inputs=ASKED, outputs=[], span=span)
    hook.on_completion(outputs=ANSWERED, span=span)
    hook.on_completion(outputs=[*ANSWERED, *ANSWERED], span=span)
    taken = contents.take(key(span))
    assert set(taken) == {"gen_ai.input.messages", "gen_ai.output.messages"}
    assert len(json.loads(taken["gen_ai.output.messages"])) == 2


def test_every_exporter_takes_the_contents(span: Span) -> None:
    first, second = SpanContents(), SpanContents()
    PostgresCompletionHook().on_completion(inputs=ASKED, span=span)
    assert first.take(key(span)) == second.take(key(span)) != {}


def test_spans_that_are_not_sampled_or_have_ended_have_no_contents(span: Span) -> None:
    contents, hook = SpanContents(), PostgresCompletionHook()
    unsampled = TracerProvider(sampler=ALWAYS_OFF).get_tracer("t").start_span("chat")
    hook.on_completion(inputs=ASKED, span=unsampled)
    span.end()
    hook.on_completion(inputs=ASKED, span=span)
    hook.on_completion(inputs=ASKED)
    assert contents.take(key(unsampled)) == contents.take(key(span)) == {}


@dataclass
class Strange:
    """Breaks whatever looks at it."""

    @property
    def value(self) -> str:
        raise RuntimeError("strange")


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        ({1: "a"}, {"1": "a"}),
        (2**70, 2**70),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ({"set": {1}}, {"set": [1]}),
        (b"\xff", "/w=="),
        (Strange(), {}),
    ],
    ids=repr,
)
def test_fields_may_have_any_value(arguments: Any, stored: object, span: Span) -> None:
    contents = SpanContents()
    call = ToolCallRequestPart(arguments=arguments, name="timetable", id="c1")
    PostgresCompletionHook().on_completion(inputs=[InputMessage("assistant", [call])], span=span)
    (message,) = json.loads(contents.take(key(span))["gen_ai.input.messages"])
    assert message["parts"][0]["arguments"] == stored


def test_files_are_held_in_base64(span: Span) -> None:
    contents = SpanContents()
    blob = BlobPart(mime_type="image/png", modality=Modality.IMAGE, content=b"\x89PNG")
    PostgresCompletionHook().on_completion(inputs=[InputMessage("user", [blob])], span=span)
    (message,) = json.loads(contents.take(key(span))["gen_ai.input.messages"])
    assert message["parts"] == [
        {"mime_type": "image/png", "modality": "image", "content": "iVBORw==", "type": "blob"}
    ]


def test_values_are_those_of_the_call_although_the_application_changes_them(span: Span) -> None:
    contents = SpanContents()
    arguments = {"harbour": "Storholmen"}
    call = ToolCallRequestPart(arguments=arguments, name="timetable", id="c1")
    PostgresCompletionHook().on_completion(inputs=[InputMessage("assistant", [call])], span=span)
    arguments.clear()
    assert "Storholmen" in contents.take(key(span))["gen_ai.input.messages"]


def test_the_oldest_contents_are_dropped_beyond_the_limit(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_contents, "_warned", set())
    contents = SpanContents(most_bytes=2200)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            contents.add((1, number), {"gen_ai.input.messages": b"x" * 300})
    assert [bool(contents.take((1, number))) for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert "a processor drop spans" in caplog.text
    # What was taken makes room.
    for number in range(3):
        contents.add((2, number), {"gen_ai.input.messages": b"x" * 300})
    assert all(contents.take((2, number)) for number in range(3))


def test_small_contents_count_with_the_memory_that_holds_them() -> None:
    contents = SpanContents(most_bytes=100_000)
    for number in range(1000):
        contents.add((1, number), {"gen_ai.input.messages": b"[]"})
    assert sum(bool(contents.take((1, number))) for number in range(1000)) < 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_no_contents_of_its_parents_spans(span: Span) -> None:
    contents = SpanContents()
    PostgresCompletionHook().on_completion(inputs=ASKED, span=span)
    child = os.fork()
    if not child:
        os._exit(0 if contents.take(key(span)) == {} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert contents.take(key(span))
