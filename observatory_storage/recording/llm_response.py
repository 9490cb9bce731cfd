"""What the response of a provider's SDK tells, in the fields of `LlmSpan`.

Responses are told apart by their fields, not by their classes: gateways and other providers answer
as OpenAI and Anthropic do, and some SDKs return plain mappings.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from observatory_storage.plain_json import PlainJson

__all__ = ["counts_of", "field_of", "read_response", "read_tier", "read_usage", "tool_call"]

_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
_CACHE_WRITE: Final = "gen_ai.usage.cache_creation.input_tokens"
_CACHE_WRITE_1H: Final = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
_TIER: Final = "openai.response.service_tier"
# What the API of responses calls an end, in the words of chat completions.
_ENDS: Final = {
    "completed": "stop",
    "max_output_tokens": "length",
    "failed": "error",
    "cancelled": "error",
}
_AUDIO_IN: Final = "gen_ai.usage.audio.input_tokens"
_AUDIO_OUT: Final = "gen_ai.usage.audio.output_tokens"


def read_response(response: object) -> dict[str, Any]:
    """The fields of `LlmSpan` that a response tells; none if it is of no known form."""
    response = _parsed(response)
    if isinstance(choices := field_of(response, "choices"), Sequence):
        found = _of_choices(choices)
        if field_of(response, "object") == "text_completion":
            found["operation"] = "text_completion"
    elif field_of(response, "type") == "message" or field_of(response, "stop_reason"):
        found = _of_blocks(response)
    elif isinstance(output := field_of(response, "output"), Sequence):
        if isinstance(output, str):
            return {}
        found = _of_items(response, output)
    elif field_of(response, "usage") is not None:
        found = {"operation": "embeddings"} if _has_embeddings(response) else {}
    else:
        return {}
    usage = read_usage(field_of(response, "usage"))
    attributes = {**usage.pop("attributes", {}), **read_tier(response)}
    for name, key in (("response_model", "model"), ("response_id", "id")):
        if isinstance(value := field_of(response, key), str) and value:
            found[name] = value
    return {**found, **usage, "attributes": attributes}


def read_tier(response: object) -> dict[str, Any]:
    """The attribute that says in which service tier a response, or a chunk of one, was made."""
    tier = field_of(response, "service_tier")
    return {_TIER: tier} if isinstance(tier, str) else {}


def read_usage(usage: object) -> dict[str, Any]:
    """The token counts of a response, cached and reasoning tokens included in their side's."""
    if usage is None:
        return {}
    prompt = counts_of(usage, "prompt_tokens", "input_tokens")
    completion = counts_of(usage, "completion_tokens", "output_tokens")
    total = counts_of(usage, "total_tokens")
    inputs = field_of(usage, "prompt_tokens_details") or field_of(usage, "input_tokens_details")
    outputs = field_of(usage, "completion_tokens_details")
    outputs = outputs or field_of(usage, "output_tokens_details")
    attributes = {
        _REASONING: counts_of(outputs, "reasoning_tokens", "thinking_tokens"),
        _AUDIO_IN: counts_of(inputs, "audio_tokens"),
        _AUDIO_OUT: counts_of(outputs, "audio_tokens"),
    }
    read = counts_of(usage, "cache_read_input_tokens")
    written = counts_of(usage, "cache_creation_input_tokens")
    if counts_of(usage, "prompt_tokens") is None and (read or written):
        # Anthropic counts cached tokens apart from the others.
        prompt = (prompt or 0) + (read or 0) + (written or 0)
        attributes[_CACHE_READ], attributes[_CACHE_WRITE] = read, written
        hour = counts_of(field_of(usage, "cache_creation"), "ephemeral_1h_input_tokens")
        attributes[_CACHE_WRITE_1H] = hour
    else:
        attributes[_CACHE_READ] = counts_of(inputs, "cached_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "attributes": {key: value for key, value in attributes.items() if value},
    }


def field_of(value: object, name: str) -> Any:
    """A field of an object or mapping; None if it has none."""
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)


def counts_of(value: object, *names: str) -> int | None:
    """The first of these fields that is a count."""
    for name in names:
        count = field_of(value, name)
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return count
    return None


def tool_call(call_id: object, name: object, arguments: object) -> dict[str, Any]:
    """A part that asks for a call of a tool."""
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}


def _parsed(response: object) -> object:
    """What is in a raw response, as ``with_raw_response`` of the SDKs returns it."""
    # A body that has not been read yet is the application's to read.
    if field_of(field_of(response, "http_response"), "is_closed") is not True:
        return response
    parse = getattr(response, "parse", None)
    return response if parse is None or inspect.iscoroutinefunction(parse) else parse()


def _has_embeddings(response: object) -> bool:
    data = field_of(response, "data")
    first = data[0] if isinstance(data, Sequence) and data else None
    return field_of(first, "embedding") is not None


def _of_choices(choices: Sequence[Any]) -> dict[str, Any]:
    messages, reasons = [], []
    for choice in choices:
        message = field_of(choice, "message")
        # The older API of completions has no messages.
        is_text = message is None
        parts = _texts(field_of(choice, "text")) if is_text else _parts_of_chat(message)
        messages.append({"role": field_of(message, "role") or "assistant", "parts": parts})
        if isinstance(reason := field_of(choice, "finish_reason"), str):
            reasons.append(reason)
    return {"output_messages": messages, "finish_reasons": reasons or None}


def _parts_of_chat(message: object) -> list[dict[str, Any]]:
    parts = _texts(field_of(message, "reasoning_content"), "reasoning")
    content = field_of(message, "content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts += (_plain(part) for part in content)
    else:
        parts += _texts(content)
    parts += _texts(field_of(message, "refusal"))
    for call in field_of(message, "tool_calls") or ():
        function = field_of(call, "function") or field_of(call, "custom")
        arguments = field_of(function, "arguments") or field_of(function, "input")
        parts.append(tool_call(field_of(call, "id"), field_of(function, "name"), arguments))
    return parts


def _of_blocks(message: object) -> dict[str, Any]:
    reason = field_of(message, "stop_reason")
    content = field_of(message, "content")
    parts = _texts(content) if isinstance(content, str) else _parts_of_blocks(content or ())
    return {
        "output_messages": [{"role": field_of(message, "role") or "assistant", "parts": parts}],
        "finish_reasons": [reason] if isinstance(reason, str) else None,
    }


def _parts_of_blocks(blocks: Iterable[Any]) -> list[dict[str, Any]]:
    parts = []
    for block in blocks:
        match field_of(block, "type"):
            case "text":
                parts += _texts(field_of(block, "text"))
            case "thinking":
                parts += _texts(field_of(block, "thinking"), "reasoning")
            case "tool_use":
                names = (field_of(block, name) for name in ("id", "name", "input"))
                parts.append(tool_call(*names))
            case _:
                parts.append(_plain(block))
    return parts


def _of_items(response: object, items: Sequence[Any]) -> dict[str, Any]:
    """The output of OpenAI's API of responses: messages, calls and thoughts, in one list."""
    parts: list[dict[str, Any]] = []
    calls_tools = False
    for item in items:
        match field_of(item, "type"):
            case "message":
                for part in field_of(item, "content") or ():
                    text = field_of(part, "text") or field_of(part, "refusal")
                    parts += _texts(text) if isinstance(text, str) else [_plain(part)]
            case "function_call" | "custom_tool_call":
                calls_tools = True
                arguments = field_of(item, "arguments") or field_of(item, "input")
                call_id = field_of(item, "call_id") or field_of(item, "id")
                parts.append(tool_call(call_id, field_of(item, "name"), arguments))
            case _:
                parts.append(_plain(item))
    details = field_of(response, "incomplete_details")
    reason = field_of(details, "reason") or field_of(response, "status")
    if isinstance(reason, str):
        reason = (
            "tool_calls" if calls_tools and reason == "completed" else _ENDS.get(reason, reason)
        )
    return {
        "output_messages": [{"role": "assistant", "parts": parts}] if parts else None,
        "finish_reasons": [reason] if isinstance(reason, str) else None,
    }


def _texts(text: object, kind: str = "text") -> list[dict[str, Any]]:
    return [{"type": kind, "content": text}] if isinstance(text, str) and text else []


def _plain(value: object) -> dict[str, Any]:
    plain = PlainJson().of(value)
    return plain if isinstance(plain, dict) else {"type": "text", "content": str(plain)}
