"""The Gemini API: generateContent and streamGenerateContent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from tests.recordings.record.calls import Call, call_for

__all__ = ["answer"]


def answer(path: str, body: dict[str, Any], text: str) -> tuple[Call, Any]:
    """The call, and its response: JSON, or an iterator of (event, JSON) for a stream."""
    model, _, method = path.rpartition("/")[2].partition(":")
    stream = method == "streamGenerateContent"
    call = call_for(
        text,
        provider="gcp.gemini",
        model=model,
        response_model=model,
        tools=bool(body.get("tools")),
        stream=stream,
    )
    if call.error is not None:
        return call, {"error": {"code": 429, "message": call.error, "status": "RESOURCE_EXHAUSTED"}}
    if call.tool is not None:
        parts: list[dict[str, Any]] = [
            {"functionCall": {"name": call.tool, "args": call.arguments}}
        ]
    else:
        words = (call.answer or "").split(" ")
        pieces = [words[0], *(f" {word}" for word in words[1:])] if stream else [call.answer]
        parts = [{"text": piece} for piece in pieces]
    if not stream:
        return call, _response(call, parts, whole=True)
    return call, _chunks(call, parts)


def _chunks(call: Call, parts: list[dict[str, Any]]) -> Iterator[tuple[None, Any]]:
    for number, part in enumerate(parts, 1):
        yield None, _response(call, [part], whole=number == len(parts))


def _response(call: Call, parts: list[dict[str, Any]], *, whole: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    response = {"modelVersion": call.response_model, "responseId": uuid.uuid4().hex[:20]}
    if not whole:
        return response | {"candidates": [candidate]}
    return response | {
        "candidates": [candidate | {"finishReason": "STOP"}],
        # This API counts thoughts apart from the candidates' tokens.
        "usageMetadata": {
            "promptTokenCount": call.prompt_tokens,
            "cachedContentTokenCount": call.cached_tokens,
            "candidatesTokenCount": call.completion_tokens - call.reasoning_tokens,
            "thoughtsTokenCount": call.reasoning_tokens,
            "totalTokenCount": call.prompt_tokens + call.completion_tokens,
        },
    }
