"""The messages of spans in one form, dialect by dialect; the attributes follow each one's docs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from observatory_storage import Message, MessagePart, SpanMessages
from observatory_storage.llm.event_messages import MessageEvent
from observatory_storage.llm.message_sources import messages_from
from tests.dialect_attributes import ATTRIBUTES
from tests.dialect_bodies import BODIES
from tests.dialect_conversation import (
    ANSWER,
    ANSWERED,
    ASKED,
    CALL,
    LEVEL,
    PLACE,
    QUESTION,
    RESULT,
    text,
)
from tests.dialect_events import EVENTS

REPORTS = ATTRIBUTES | BODIES


@pytest.mark.parametrize("dialect", REPORTS)
def test_attributes_are_read_whatever_the_dialect(dialect: str) -> None:
    attributes, expected = REPORTS[dialect]
    assert messages_from(attributes, (), ()) == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "gauge",
            "gen_ai.tool.call.id": "c1",
            "gen_ai.tool.call.arguments": json.dumps(PLACE),
            "gen_ai.tool.call.result": LEVEL,
        },
        {
            "ai.operationId": "ai.toolCall",
            "ai.toolCall.name": "gauge",
            "ai.toolCall.id": "c1",
            "ai.toolCall.args": json.dumps(PLACE),
            "ai.toolCall.result": json.dumps(LEVEL),
        },
        {
            "gen_ai.tool.name": "gauge",
            "gen_ai.tool.call.id": "c1",
            "gcp.vertex.agent.tool_call_args": json.dumps(PLACE),
            "gcp.vertex.agent.tool_response": LEVEL,
        },
        {
            "openinference.span.kind": "TOOL",
            "tool.name": "gauge",
            "tool.id": "c1",
            "input.value": json.dumps(PLACE),
            "output.value": json.dumps([{"type": "text", "text": LEVEL}]),
        },
        {
            "langsmith.span.kind": "tool",
            "gen_ai.tool.name": "gauge",
            "gen_ai.tool.call.id": "c1",
            "gen_ai.prompt": json.dumps(PLACE),
            "gen_ai.completion": json.dumps(
                {"output": {"type": "tool", "tool_call_id": "c1", "content": LEVEL}}
            ),
        },
    ],
)
def test_a_tool_has_its_arguments_as_input_and_its_result_as_output(
    attributes: dict[str, Any],
) -> None:
    outcome = MessagePart("tool_result", name="gauge", id="c1", result=LEVEL)
    assert messages_from(attributes, (), ()) == SpanMessages(
        (Message("assistant", (CALL,)),), (Message("tool", (outcome,)),)
    )


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://a.org/x.png"}},
            MessagePart("file", modality="image", uri="https://a.org/x.png"),
        ),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            MessagePart("file", modality="image", mime_type="image/png", content="AAAA"),
        ),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "AA"},
            },
            MessagePart("file", modality="image", mime_type="image/png", content="AA"),
        ),
        (
            {"type": "document", "source": {"type": "file", "file_id": "f1"}},
            MessagePart("file", modality="document", file_id="f1"),
        ),
        (
            {"inlineData": {"mimeType": "audio/wav", "data": "AA"}},
            MessagePart("file", modality="audio", mime_type="audio/wav", content="AA"),
        ),
        (
            {"file_data": {"mime_type": "video/mp4", "file_uri": "gs://b/x"}},
            MessagePart("file", modality="video", mime_type="video/mp4", uri="gs://b/x"),
        ),
        (
            {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "AA"},
            MessagePart("file", modality="image", mime_type="image/png", content="AA"),
        ),
        (
            {"type": "uri", "modality": "video", "uri": "s3://b/x"},
            MessagePart("file", modality="video", uri="s3://b/x"),
        ),
        (
            {"image": {"format": "png", "source": {"bytes": "AA"}}},
            MessagePart("file", modality="image", mime_type="png", content="AA"),
        ),
        (
            {"type": "file", "data": "AA", "mediaType": "application/pdf", "filename": "a.pdf"},
            MessagePart(
                "file",
                name="a.pdf",
                modality="document",
                mime_type="application/pdf",
                content="AA",
            ),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            MessagePart("file", modality="audio", mime_type="wav", content="AA"),
        ),
        ({"type": "weather", "sun": 1}, MessagePart("data", data={"type": "weather", "sun": 1})),
        ({"text": "hm", "thought": True}, MessagePart("reasoning", text="hm")),
        (
            {"reasoningContent": {"reasoningText": {"text": "hm"}}},
            MessagePart("reasoning", text="hm"),
        ),
        ({"toolUse": {"toolUseId": "c1", "name": "gauge", "input": PLACE}}, CALL),
        ({"toolResult": {"toolUseId": "c1", "content": [{"text": LEVEL}]}}, RESULT),
        (
            {
                "message_content": {"type": "tool_use"},
                "tool_call": {
                    "id": "c1",
                    "function": {"name": "gauge", "arguments": json.dumps(PLACE)},
                },
            },
            CALL,
        ),
        ({"type": "refusal", "refusal": "no"}, text("no")),
        ("plain", text("plain")),
        ('{"a": 1}', text('{"a": 1}')),
    ],
    ids=str,
)
def test_parts_of_all_providers(part: Any, expected: MessagePart) -> None:
    asked = [{"role": "user", "content": [part] if isinstance(part, dict) else part}]
    found = messages_from({"gen_ai.input.messages": asked}, (), ())
    assert found.input == (Message("user", (expected,)),)


def test_an_empty_text_is_read_only_if_the_message_has_nothing_else() -> None:
    empty = {"type": "text", "content": ""}
    call = {"type": "tool_call", "id": "c1", "name": "gauge", "arguments": PLACE}
    answers = [
        {"role": "assistant", "parts": [empty, call]},
        {"role": "assistant", "parts": [empty], "finish_reason": "length"},
    ]
    found = messages_from({"gen_ai.output.messages": answers}, (), ())
    assert found.output == (
        Message("assistant", (CALL,)),
        Message("assistant", (text(""),), finish_reason="length"),
    )


@pytest.mark.parametrize("dialect", EVENTS)
def test_events_are_read_where_attributes_have_no_messages(dialect: str) -> None:
    given, expected = EVENTS[dialect]
    events = [MessageEvent(name, fields) for name, fields in given]
    assert messages_from({}, events, ()) == expected
    assert messages_from({}, (), events) == expected


def test_the_tool_span_of_strands_has_arguments_and_a_result_in_events() -> None:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "gauge",
        "gen_ai.tool.call.id": "c1",
    }
    events = [
        MessageEvent("gen_ai.tool.message", {"content": json.dumps(PLACE), "role": "tool"}),
        MessageEvent("gen_ai.choice", {"message": json.dumps([{"text": LEVEL}])}),
    ]
    outcome = MessagePart("tool_result", name="gauge", id="c1", result=LEVEL)
    assert messages_from(attributes, events, ()) == SpanMessages(
        (Message("assistant", (CALL,)),), (Message("tool", (outcome,)),)
    )


def test_each_side_comes_from_the_first_place_that_has_it() -> None:
    attributes = {"gen_ai.input.messages": [{"role": "user", "content": ASKED}]}
    events = [
        MessageEvent("gen_ai.user.message", {"content": "in an event"}),
        MessageEvent("gen_ai.choice", {"message": ANSWER}),
    ]
    logs = [MessageEvent("gen_ai.choice", {"message": "in a log record"})]
    assert messages_from(attributes, events, logs) == SpanMessages((QUESTION,), (ANSWERED,))


def test_claude_codes_records_are_known_by_their_bodies() -> None:
    named = MessageEvent.of_log(
        None, "claude_code.user_prompt", None, {"event.name": "user_prompt", "prompt": ASKED}
    )
    assert messages_from({}, (), [named]).input == (QUESTION,)


@pytest.mark.parametrize("value", [7, True, "", [], {}, [None], [[]], {"role": 1}, '{"a":', "[1]"])
@pytest.mark.parametrize(
    "name",
    [
        *("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions"),
        *("llm.input_messages.0.message", "llm.input_messages.0", "gen_ai.system_instructions"),
        *("events", "ai.response.toolCalls", "ai.prompt.tools", "gen_ai.response.finish_reasons"),
    ],
)
def test_no_value_makes_it_fail(name: str, value: Any) -> None:
    for given in (value, [value], {"messages": value}, {"choices": [{"message": value}]}):
        attributes = {name: given, "gen_ai.completion": given}
        events = [
            MessageEvent("gen_ai.choice", {"message": given, "tool_calls": given}),
            MessageEvent("gen_ai.tool.message", {"content": given, "id": given}),
            MessageEvent("codex.tool_result", {"output": given, "tool_name": given}),
            MessageEvent.of_log(None, None, given, {}),
        ]
        assert isinstance(messages_from(attributes, events, events), SpanMessages)


def test_deeply_nested_json_is_given_as_data() -> None:
    nested = json.dumps({"content": 1})
    for _ in range(900):
        nested = f"[{nested}]"
    (message,) = messages_from({"input.value": nested}, (), ()).input
    assert [part.type for part in message.parts] == ["data"]


def test_a_part_as_a_dictionary_has_only_the_fields_of_its_type() -> None:
    assert RESULT.to_dict(json=True) == {"type": "tool_result", "id": "c1", "result": LEVEL}
    assert Message("user", (text("a"), text("b"))).text == "a\nb"
