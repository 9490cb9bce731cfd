"""The question, the tool call and the answer that the spans of every dialect report."""

from __future__ import annotations

import json
from typing import Any

from observatory_storage import Message, MessagePart, SpanMessages, ToolDefinition

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
