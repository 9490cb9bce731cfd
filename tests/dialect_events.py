"""Events of each dialect that report the conversation."""

from __future__ import annotations

import json
from typing import Any

from observatory_storage import Message, MessagePart, SpanMessages
from tests.dialect_conversation import (
    ANSWER,
    ANSWERED,
    ASKED,
    LEVEL,
    OPENAI_CALL,
    OTEL_INPUT,
    OTEL_OUTPUT,
    QUESTION,
    STOPPED,
    TURNS,
    text,
)

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
