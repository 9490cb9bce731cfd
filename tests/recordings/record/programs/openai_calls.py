"""Calls of the OpenAI SDK, whichever instrumentation is on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
from conversation import (
    INSTRUCTIONS,
    QUESTION,
    REFUSED_QUESTION,
    RESULT,
    TOOL,
    TOOL_DESCRIPTION,
)
from telemetry import SERVER

__all__ = ["chat", "client_of", "embedding", "refused", "responses_stream", "stream", "tool"]

MODEL = "gpt-5-mini"
MESSAGES = [
    {"role": "system", "content": INSTRUCTIONS},
    {"role": "user", "content": QUESTION},
]
PARAMETERS = {"type": "object", "properties": {"harbour": {"type": "string"}}}
FUNCTION = {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": PARAMETERS}


def client_of(client_type: Any = openai.OpenAI) -> Any:
    return client_type(base_url=f"{SERVER}/v1", api_key="none", max_retries=0)


def chat(client: Any) -> str:
    answered = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    return str(answered.choices[0].message.content)


def stream(client: Any) -> str:
    options = {"include_usage": True}
    chunks = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options=options
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def responses_stream(client: Any) -> None:
    events = client.responses.create(
        model=MODEL, instructions=INSTRUCTIONS, input=QUESTION, stream=True
    )
    for _event in events:
        pass


def tool(client: Any, timetable: Callable[..., str] = lambda harbour: RESULT) -> str:
    """A loop as agents have it: the model calls a tool, then answers with its result."""
    messages: list[Any] = list(MESSAGES)
    tools = [{"type": "function", "function": FUNCTION}]
    while True:
        answered = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
        message = answered.choices[0].message
        if not message.tool_calls:
            return str(message.content)
        (call,) = message.tool_calls
        function = {"name": call.function.name, "arguments": call.function.arguments}
        called = {"id": call.id, "type": "function", "function": function}
        result = timetable(**json.loads(call.function.arguments))
        messages.append({"role": "assistant", "content": None, "tool_calls": [called]})
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def embedding(client: Any) -> None:
    client.embeddings.create(
        model="text-embedding-3-small", input=QUESTION, encoding_format="float"
    )


def refused(client: Any) -> None:
    try:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": REFUSED_QUESTION}]
        )
    except openai.RateLimitError:
        return
    raise AssertionError("the server did not refuse")
