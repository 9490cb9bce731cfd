"""The messages of spans in one form, dialect by dialect; the attributes follow each one's docs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from observatory_storage import Message, MessagePart, SpanMessages, ToolDefinition
from observatory_storage.llm.event_messages import MessageEvent
from observatory_storage.llm.message_sources import messages_from

ASKED, ANSWER = "Which river runs through Paris?", "The Seine."
LEVEL, PLACE = "the level is 2 m", {"river": "Seine"}


def text(value: str) -> MessagePart:
    return MessagePart("text", text=value)


CALL = MessagePart("tool_call", name="gauge", id="c1", arguments=PLACE)
RESULT = MessagePart("tool_result", id="c1", result=LEVEL)
QUESTION = Message("user", (text(ASKED),))
STOPPED = Message("assistant", (text(ANSWER),), finish_reason="stop")
ANSWERED = Message("assistant", (text(ANSWER),))
TOOLS = (ToolDefinition("gauge", "Level of a river", {"type": "object"}),)
OPENAI_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "gauge",
        "description": "Level of a river",
        "parameters": TOOLS[0].parameters,
    },
}
OPENAI_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "gauge", "arguments": json.dumps(PLACE)},
}
OPENAI_REQUEST = {
    "model": "m",
    "messages": [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": LEVEL},
    ],
    "tools": [OPENAI_TOOL],
}
OPENAI_RESPONSE: dict[str, Any] = {
    "id": "r1",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
    ],
}
TURNS = (QUESTION, Message("assistant", (CALL,)), Message("tool", (RESULT,)))
WITH_TOOLS = SpanMessages(TURNS, (STOPPED,), (), TOOLS)
OTEL_INPUT = [
    {"role": "user", "parts": [{"type": "text", "content": ASKED}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "c1", "name": "gauge", "arguments": PLACE}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": LEVEL}]},
]
OTEL_OUTPUT = [
    {
        "role": "assistant",
        "parts": [{"type": "text", "content": ANSWER}],
        "finish_reason": "stop",
    }
]
ATTRIBUTES: dict[str, tuple[dict[str, Any], SpanMessages]] = {
    "OpenTelemetry, structured": (
        {
            "gen_ai.input.messages": OTEL_INPUT,
            "gen_ai.output.messages": OTEL_OUTPUT,
            "gen_ai.system_instructions": [{"type": "text", "content": "Be short."}],
            "gen_ai.tool.definitions": json.dumps([OPENAI_TOOL["function"]]),
        },
        SpanMessages(TURNS, (STOPPED,), (text("Be short."),), TOOLS),
    ),
    "OpenTelemetry, JSON in text": (
        {
            "gen_ai.input.messages": json.dumps(OTEL_INPUT),
            "gen_ai.output.messages": json.dumps(OTEL_OUTPUT),
        },
        SpanMessages(TURNS, (STOPPED,)),
    ),
    "OpenInference": (
        {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": ASKED,
            "llm.input_messages.1.message.role": "assistant",
            "llm.input_messages.1.message.tool_calls.0.tool_call.id": "c1",
            "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "gauge",
            "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": json.dumps(
                PLACE
            ),
            "llm.input_messages.2.message.role": "tool",
            "llm.input_messages.2.message.tool_call_id": "c1",
            "llm.input_messages.2.message.content": LEVEL,
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.contents.0.message_content.type": "text",
            "llm.output_messages.0.message.contents.0.message_content.text": ANSWER,
            "llm.tools.0.tool.json_schema": json.dumps(OPENAI_TOOL),
            "output.value": json.dumps(OPENAI_RESPONSE),
        },
        WITH_TOOLS,
    ),
    "OpenInference, values alone": (
        {"input.value": json.dumps(OPENAI_REQUEST), "output.value": json.dumps(OPENAI_RESPONSE)},
        WITH_TOOLS,
    ),
    "OpenLLMetry, flattened": (
        {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": ASKED,
            "gen_ai.prompt.1.role": "assistant",
            "gen_ai.prompt.1.tool_calls.0.id": "c1",
            "gen_ai.prompt.1.tool_calls.0.name": "gauge",
            "gen_ai.prompt.1.tool_calls.0.arguments": json.dumps(PLACE),
            "gen_ai.prompt.2.role": "tool",
            "gen_ai.prompt.2.tool_call_id": "c1",
            "gen_ai.prompt.2.content": LEVEL,
            "gen_ai.prompt.name": "not a message",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": ANSWER,
            "gen_ai.completion.0.finish_reason": "stop",
            "llm.request.functions.0.name": "gauge",
            "llm.request.functions.0.description": "Level of a river",
            "llm.request.functions.0.parameters": json.dumps(TOOLS[0].parameters),
        },
        WITH_TOOLS,
    ),
    "LangSmith": (
        {
            "gen_ai.prompt": json.dumps(OPENAI_REQUEST),
            "gen_ai.completion": json.dumps(OPENAI_RESPONSE),
        },
        WITH_TOOLS,
    ),
    "Langfuse, chat": (
        {
            "langfuse.observation.input": json.dumps(OPENAI_REQUEST),
            "langfuse.observation.output": json.dumps(OPENAI_RESPONSE["choices"][0]["message"]),
            "langfuse.observation.prompt.name": "not a message",
        },
        SpanMessages(TURNS, (ANSWERED,), (), TOOLS),
    ),
    "Langfuse, trace": (
        {"langfuse.trace.input": ASKED, "langfuse.trace.output": ANSWER},
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "MLflow, responses": (
        {
            "mlflow.spanInputs": json.dumps(
                {
                    "instructions": "Be short.",
                    "input": [
                        {"role": "user", "content": [{"type": "input_text", "text": ASKED}]},
                        {
                            "type": "function_call",
                            "id": "f1",
                            "call_id": "c1",
                            "name": "gauge",
                            "arguments": json.dumps(PLACE),
                        },
                        {"type": "function_call_output", "call_id": "c1", "output": LEVEL},
                    ],
                    "tools": [{"type": "function", **OPENAI_TOOL["function"]}],
                }
            ),
            "mlflow.spanOutputs": json.dumps(
                {
                    "output": [
                        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                        {
                            "type": "message",
                            "role": "assistant",
                            "content": [{"type": "output_text", "text": ANSWER}],
                        },
                    ]
                }
            ),
        },
        SpanMessages(
            TURNS,
            (Message("assistant", (MessagePart("reasoning", text="hm"),)), ANSWERED),
            (text("Be short."),),
            TOOLS,
        ),
    ),
    "AI SDK": (
        {
            "ai.prompt.messages": json.dumps(
                [
                    {"role": "user", "content": [{"type": "text", "text": ASKED}]},
                    {
                        "role": "assistant",
                        "content": [
                            {
                                "type": "tool-call",
                                "toolCallId": "c1",
                                "toolName": "gauge",
                                "input": PLACE,
                            }
                        ],
                    },
                    {
                        "role": "tool",
                        "content": [
                            {
                                "type": "tool-result",
                                "toolCallId": "c1",
                                "toolName": "gauge",
                                "output": {"type": "text", "value": LEVEL},
                            }
                        ],
                    },
                ]
            ),
            "ai.prompt.tools": [json.dumps({"type": "function", **OPENAI_TOOL["function"]})],
            "ai.response.reasoning": "hm",
            "ai.response.text": ANSWER,
            "ai.response.toolCalls": json.dumps(
                [{"toolCallId": "c1", "toolName": "gauge", "args": json.dumps(PLACE)}]
            ),
            "ai.response.finishReason": "tool-calls",
        },
        SpanMessages(
            (
                *TURNS[:2],
                Message("tool", (MessagePart("tool_result", name="gauge", id="c1", result=LEVEL),)),
            ),
            (
                Message(
                    "assistant",
                    (MessagePart("reasoning", text="hm"), text(ANSWER), CALL),
                    finish_reason="tool-calls",
                ),
            ),
            (),
            TOOLS,
        ),
    ),
    "AI SDK, the outer span": (
        {
            "ai.prompt": json.dumps({"system": "Be short.", "prompt": ASKED}),
            "ai.response.text": ANSWER,
        },
        SpanMessages((QUESTION,), (ANSWERED,), (text("Be short."),)),
    ),
    "pydantic-ai, the agent": (
        {"pydantic_ai.all_messages": json.dumps(OTEL_INPUT + OTEL_OUTPUT), "final_result": ANSWER},
        SpanMessages(TURNS, (ANSWERED,)),
    ),
    "pydantic-ai, events": (
        {
            "events": json.dumps(
                [
                    {"event.name": "gen_ai.user.message", "role": "user", "content": ASKED},
                    {"event.name": "gen_ai.assistant.message", "tool_calls": [OPENAI_CALL]},
                    {"event.name": "gen_ai.tool.message", "id": "c1", "content": LEVEL},
                    {"event.name": "gen_ai.choice", "message": {"content": ANSWER}},
                ]
            )
        },
        SpanMessages(TURNS, (ANSWERED,)),
    ),
    "logfire, OpenAI": (
        {
            "request_data": json.dumps(OPENAI_REQUEST),
            "response_data": json.dumps({"message": {"role": "assistant", "content": ANSWER}}),
        },
        SpanMessages(TURNS, (ANSWERED,), (), TOOLS),
    ),
    "Google ADK": (
        {
            "gcp.vertex.agent.llm_request": json.dumps(
                {
                    "model": "gemini",
                    "config": {
                        "system_instruction": "Be short.",
                        "tools": [
                            {
                                "function_declarations": [
                                    {
                                        "name": "gauge",
                                        "description": "Level of a river",
                                        "parameters": {"type": "object"},
                                    }
                                ]
                            }
                        ],
                    },
                    "contents": [
                        {"role": "user", "parts": [{"text": ASKED}]},
                        {
                            "role": "model",
                            "parts": [
                                {"function_call": {"id": "c1", "name": "gauge", "args": PLACE}}
                            ],
                        },
                        {
                            "role": "user",
                            "parts": [
                                {
                                    "function_response": {
                                        "id": "c1",
                                        "name": "gauge",
                                        "response": {"result": LEVEL},
                                    }
                                }
                            ],
                        },
                    ],
                }
            ),
            "gcp.vertex.agent.llm_response": json.dumps(
                {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finish_reason": "STOP"}
            ),
        },
        SpanMessages(
            (
                *TURNS[:2],
                Message(
                    "user",
                    (MessagePart("tool_result", name="gauge", id="c1", result={"result": LEVEL}),),
                ),
            ),
            (Message("assistant", (text(ANSWER),), finish_reason="STOP"),),
            (text("Be short."),),
            TOOLS,
        ),
    ),
    "Anthropic's request and answer": (
        {
            "input.value": json.dumps(
                {
                    "system": [{"type": "text", "text": "Be short."}],
                    "messages": [
                        {"role": "user", "content": ASKED},
                        {
                            "role": "assistant",
                            "content": [
                                {"type": "tool_use", "id": "c1", "name": "gauge", "input": PLACE}
                            ],
                        },
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "tool_result",
                                    "tool_use_id": "c1",
                                    "content": [{"type": "text", "text": LEVEL}],
                                }
                            ],
                        },
                    ],
                    "tools": [
                        {
                            "name": "gauge",
                            "description": "Level of a river",
                            "input_schema": {"type": "object"},
                        }
                    ],
                }
            ),
            "output.value": json.dumps(
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm"},
                        {"type": "text", "text": ANSWER},
                    ],
                    "stop_reason": "end_turn",
                }
            ),
        },
        SpanMessages(
            (*TURNS[:2], Message("user", (RESULT,))),
            (
                Message(
                    "assistant",
                    (MessagePart("reasoning", text="hm"), text(ANSWER)),
                    finish_reason="end_turn",
                ),
            ),
            (text("Be short."),),
            TOOLS,
        ),
    ),
    "LangChain's messages": (
        {
            "gen_ai.prompt": json.dumps(
                {
                    "messages": [
                        [
                            {
                                "lc": 1,
                                "type": "constructor",
                                "id": ["langchain", "schema", "messages", "HumanMessage"],
                                "kwargs": {"content": ASKED, "type": "human"},
                            }
                        ]
                    ]
                }
            ),
            "gen_ai.completion": json.dumps(
                {
                    "generations": [
                        [
                            {
                                "text": ANSWER,
                                "generation_info": {"finish_reason": "stop"},
                                "message": {
                                    "lc": 1,
                                    "id": ["langchain", "schema", "messages", "AIMessage"],
                                    "kwargs": {"content": ANSWER, "type": "ai"},
                                },
                            }
                        ]
                    ]
                }
            ),
        },
        SpanMessages((QUESTION,), (STOPPED,)),
    ),
    "completions": (
        {"llm.prompts": [ASKED], "llm.choices.0.completion.text": ANSWER},
        SpanMessages((QUESTION,), (Message("assistant", (text(ANSWER),)),)),
    ),
    "texts to embed": (
        {
            "embedding.embeddings.0.embedding.text": ASKED,
            "embedding.embeddings.0.embedding.vector": [0.5, 0.25],
        },
        SpanMessages((QUESTION,)),
    ),
    "a retrieval": (
        {"input.value": ASKED, "retrieval.documents.0.document.content": ANSWER},
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "a workflow": (
        {"traceloop.entity.input": json.dumps({"args": [1]}), "traceloop.entity.output": ANSWER},
        SpanMessages((Message("user", (MessagePart("data", data={"args": [1]}),)),), (ANSWERED,)),
    ),
    "no messages": ({"gen_ai.prompt.name": "greeting", "http.method": "POST"}, SpanMessages()),
}


@pytest.mark.parametrize("dialect", ATTRIBUTES)
def test_attributes_are_read_whatever_the_dialect(dialect: str) -> None:
    attributes, expected = ATTRIBUTES[dialect]
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


STRANDS = [
    ("gen_ai.system.message", {"content": '[{"text": "Be short."}]'}),
    ("gen_ai.user.message", {"content": json.dumps([{"text": ASKED}])}),
    (
        "gen_ai.choice",
        {"message": json.dumps([{"text": ANSWER}]), "finish_reason": "end_turn"},
    ),
]
EVENTS: dict[str, tuple[list[tuple[str, dict[str, Any]]], SpanMessages]] = {
    "Strands": (
        STRANDS,
        SpanMessages(
            (Message("system", (text("Be short."),)), QUESTION),
            (Message("assistant", (text(ANSWER),), finish_reason="end_turn"),),
        ),
    ),
    "messages": (
        [
            ("gen_ai.user.message", {"content": ASKED}),
            ("gen_ai.assistant.message", {"tool_calls": [OPENAI_CALL]}),
            ("gen_ai.tool.message", {"content": LEVEL, "id": "c1"}),
            (
                "gen_ai.choice",
                {"index": 0, "finish_reason": "stop", "message": {"content": ANSWER}},
            ),
        ],
        SpanMessages(TURNS, (STOPPED,)),
    ),
    "old contents": (
        [
            ("gen_ai.content.prompt", {"gen_ai.prompt": ASKED}),
            ("gen_ai.content.completion", {"gen_ai.completion": ANSWER}),
        ],
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "details": (
        [
            (
                "gen_ai.client.inference.operation.details",
                {"gen_ai.input.messages": OTEL_INPUT, "gen_ai.output.messages": OTEL_OUTPUT},
            )
        ],
        SpanMessages(TURNS, (STOPPED,)),
    ),
    "Gemini CLI": (
        [
            ("gemini_cli.user_prompt", {"prompt": ASKED, "prompt_length": 31}),
            ("gemini_cli.api_response", {"response_text": ANSWER, "model": "gemini"}),
        ],
        SpanMessages((QUESTION,), (ANSWERED,)),
    ),
    "Codex": (
        [
            ("codex.user_prompt", {"prompt": ASKED}),
            (
                "codex.tool_result",
                {"tool_name": "gauge", "call_id": "c1", "arguments": "{}", "output": LEVEL},
            ),
        ],
        SpanMessages(
            (
                QUESTION,
                Message(
                    "assistant", (MessagePart("tool_call", name="gauge", id="c1", arguments={}),)
                ),
            ),
            (Message("tool", (MessagePart("tool_result", name="gauge", id="c1", result=LEVEL),)),),
        ),
    ),
    "other events": (
        [("exception", {"message": "no"}), ("log", {"content": "no"})],
        SpanMessages(),
    ),
}


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
