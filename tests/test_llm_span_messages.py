"""`LlmSpan`: messages of every form, and the objects of SDKs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from observatory_storage.llm import LlmSpan


def test_messages_of_every_form() -> None:
    parts = [{"type": "uri", "modality": "image", "uri": "https://example.org/a.png"}]
    span = LlmSpan(
        model="m",
        input_messages=[
            {"role": "system", "content": "Be brief."},
            "Hello",
            {"role": "user", "parts": parts},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        output_messages=["a", {"content": "b", "finish_reason": "length"}],
        finish_reasons=["stop"],
        system_instructions=["One.", {"type": "text", "content": "Two."}],
    ).to_span()
    assert span.attributes["gen_ai.input.messages"] == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hello"}]},
        {"role": "user", "parts": parts},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    assert span.attributes["gen_ai.output.messages"] == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "a"}],
            "finish_reason": "stop",
        },
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "b"}],
            "finish_reason": "length",
        },
    ]
    assert span.attributes["gen_ai.system_instructions"] == [
        {"type": "text", "content": "One."},
        {"type": "text", "content": "Two."},
    ]


def test_messages_may_be_objects_of_a_providers_sdk() -> None:
    class Message(BaseModel):
        role: str
        content: str
        tool_calls: list[Any] | None = None

    @dataclass
    class Part:
        type: str
        content: str

    span = LlmSpan(
        model="m",
        input_messages=[
            Message(role="user", content="Hi"),
            {"role": "user", "parts": [Part("text", "x")]},
        ],
        output_messages=[Message(role="assistant", content="Hello", tool_calls=[{1}])],
        system_instructions=[Part("text", "Be brief.")],
    ).to_span()
    first, second = span.attributes["gen_ai.input.messages"]
    assert first["parts"] == [{"type": "text", "content": "Hi"}]
    assert second["role"] == "user"
    assert span.attributes["gen_ai.output.messages"] == [
        {"role": "assistant", "tool_calls": [[1]], "parts": [{"type": "text", "content": "Hello"}]}
    ]
    assert span.attributes["gen_ai.system_instructions"] == [
        {"type": "text", "content": "Be brief."}
    ]
