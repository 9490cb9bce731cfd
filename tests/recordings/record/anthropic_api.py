"""Anthropic's messages API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from tests.recordings.record.calls import Call, call_for

__all__ = ["answer"]


def answer(body: dict[str, Any], text: str) -> tuple[Call, Any]:
    """The call, and its response: JSON, or an iterator of (event, JSON) for a stream."""
    stream = bool(body.get("stream"))
    call = call_for(
        text,
        provider="anthropic",
        model=body["model"],
        response_model=f"{body['model']}-20250929",
        tools=bool(body.get("tools")),
        stream=stream,
        reasons=False,
        writes_cache=True,
    )
    if call.error is not None:
        error = {"type": "rate_limit_error", "message": call.error}
        return call, {"type": "error", "error": error}
    if call.tool is not None:
        said = {"name": call.tool, "input": call.arguments}
        block: dict[str, Any] = {"type": "tool_use", "id": "toolu_timetable1", **said}
    else:
        block = {"type": "text", "text": call.answer}
    message = {
        "id": f"msg_{uuid.uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": call.response_model,
        "content": [block],
        "stop_reason": "end_turn" if call.tool is None else "tool_use",
        "stop_sequence": None,
        "usage": _usage(call, call.completion_tokens),
    }
    return call, _events(call, message) if stream else message


def _usage(call: Call, output_tokens: int) -> dict[str, Any]:
    # This API counts what was read from the cache or written to it apart from other input.
    plain = call.prompt_tokens - call.cached_tokens - call.cache_write_tokens
    return {
        "input_tokens": plain,
        "cache_read_input_tokens": call.cached_tokens,
        "cache_creation_input_tokens": call.cache_write_tokens,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _events(call: Call, message: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    (block,) = message["content"]
    # The counts of a stream are running totals, and instrumentations exist that add them up.
    begun: dict[str, Any] = {"content": [], "stop_reason": None, "usage": _usage(call, 0)}
    deltas: list[dict[str, Any]]
    if call.tool is not None:
        started = block | {"input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(call.arguments)}]
    else:
        started = block | {"text": ""}
        words = (call.answer or "").split(" ")
        pieces = [words[0], *(f" {word}" for word in words[1:])]
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | begun},
        {"type": "content_block_start", "index": 0, "content_block": started},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": message["usage"]},
        {"type": "message_stop"},
    ]
    for event in events:
        yield event["type"], event
