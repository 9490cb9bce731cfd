"""OpenLLMetry's instrumentation of the Anthropic SDK, with the spans of the SDK or without."""

from __future__ import annotations

import sys
from typing import Any

import anthropic
from conversation import (
    INSTRUCTIONS,
    QUESTION,
    REFUSED_QUESTION,
    RESULT,
    TOOL,
    TOOL_DESCRIPTION,
)
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from telemetry import SERVER, export

scenario = sys.argv[1]
export()
AnthropicInstrumentor().instrument()
client = anthropic.Anthropic(
    base_url=SERVER,
    api_key="none",
    max_retries=0,
    open_telemetry={"traces": scenario == "beside-sdk-spans"},
)
asked: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 400, "system": INSTRUCTIONS}
messages: list[Any] = [{"role": "user", "content": QUESTION}]


def tool() -> None:
    schema = {"type": "object", "properties": {"harbour": {"type": "string"}}}
    tools = [{"name": TOOL, "description": TOOL_DESCRIPTION, "input_schema": schema}]
    answered = client.messages.create(**asked, messages=messages, tools=tools)
    (call,) = answered.content
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    messages.append({"role": "assistant", "content": answered.content})
    messages.append({"role": "user", "content": [result]})
    client.messages.create(**asked, messages=messages, tools=tools)


if scenario in ("chat", "beside-sdk-spans"):
    client.messages.create(**asked, messages=messages)
elif scenario == "stream":
    for _event in client.messages.create(**asked, messages=messages, stream=True):
        pass
elif scenario == "tool":
    tool()
elif scenario == "error":
    try:
        client.messages.create(**asked, messages=[{"role": "user", "content": REFUSED_QUESTION}])
    except anthropic.RateLimitError:
        sys.exit(0)
    raise AssertionError("the server did not refuse")
