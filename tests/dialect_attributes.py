"""Attributes of each dialect's own, which together report the conversation."""

from __future__ import annotations

import json
from typing import Any

from observatory_storage import Message, MessagePart, SpanMessages
from tests.dialect_conversation import (
    ANSWER,
    ANSWERED,
    ASKED,
    CALL,
    LEVEL,
    OPENAI_CALL,
    OPENAI_RESPONSE,
    OPENAI_TOOL,
    OTEL_INPUT,
    OTEL_OUTPUT,
    PLACE,
    QUESTION,
    STOPPED,
    TOOLS,
    TURNS,
    WITH_TOOLS,
    text,
)

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
    "Langfuse, trace": (
        {"langfuse.trace.input": ASKED, "langfuse.trace.output": ANSWER},
        SpanMessages((QUESTION,), (ANSWERED,)),
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
