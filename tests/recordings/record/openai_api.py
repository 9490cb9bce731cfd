"""OpenAI's API: chat completions, responses and embeddings."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from tests.recordings.record.calls import Call, call_for

__all__ = ["answer"]

_CREATED = 1_750_000_000


def answer(path: str, body: dict[str, Any], text: str) -> tuple[Call, Any]:
    """The call, and its response: JSON, or an iterator of (event, JSON) for a stream."""
    stream = bool(body.get("stream"))
    if path.endswith("/embeddings"):
        return _embedding(body)
    call = call_for(
        text,
        provider="openai",
        model=body["model"],
        response_model=f"{body['model']}-2025-08-07",
        tools=bool(body.get("tools")),
        stream=stream,
    )
    if call.error is not None:
        error = {"message": call.error, "type": "insufficient_quota", "code": "insufficient_quota"}
        return call, {"error": error | {"param": None}}
    if path.endswith("/responses"):
        response = _response(call)
        return call, _response_events(call, response) if stream else response
    return call, _chunks(call) if stream else _completion(call)


def _embedding(body: dict[str, Any]) -> tuple[Call, Any]:
    model = body["model"]
    call = Call(provider="openai", model=model, response_model=model, prompt_tokens=9)
    # The client asks for base64 and reads numbers too.
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.75]}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    return call, {"object": "list", "model": model, "data": data, "usage": usage}


def _completion(call: Call) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": call.answer, "refusal": None}
    if call.tool is not None:
        message["tool_calls"] = [_tool_call(call)]
    choice = {"index": 0, "message": message, "finish_reason": _finish(call), "logprobs": None}
    return _head(call, "chat.completion") | {"choices": [choice], "usage": _chat_usage(call)}


def _chunks(call: Call) -> Iterator[tuple[None, Any]]:
    head = _head(call, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if call.tool is not None:
        deltas.append({"tool_calls": [{"index": 0, **_tool_call(call)}]})
    deltas += [{"content": piece} for piece in _pieces(call)]
    for delta in deltas:
        yield None, head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield None, head | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(call)}]}
    yield None, head | {"choices": [], "usage": _chat_usage(call)}


def _head(call: Call, kind: str) -> dict[str, Any]:
    identified = {"id": f"chatcmpl-{uuid.uuid4().hex[:20]}", "object": kind, "created": _CREATED}
    return identified | {"model": call.response_model, "service_tier": "default"}


def _tool_call(call: Call) -> dict[str, Any]:
    function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
    return {"id": "call_timetable1", "type": "function", "function": function}


def _finish(call: Call) -> str:
    return "stop" if call.tool is None else "tool_calls"


def _pieces(call: Call) -> list[str]:
    words = (call.answer or "").split(" ")
    return [words[0], *(f" {word}" for word in words[1:])] if call.answer else []


def _chat_usage(call: Call) -> dict[str, Any]:
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": call.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": call.reasoning_tokens, "audio_tokens": 0},
    }


def _response(call: Call) -> dict[str, Any]:
    output: dict[str, Any]
    if call.tool is not None:
        said = {"name": call.tool, "arguments": json.dumps(call.arguments)}
        output = {"type": "function_call", "id": "fc_1", "call_id": "call_timetable1", **said}
    else:
        part: dict[str, Any] = {"type": "output_text", "text": call.answer, "annotations": []}
        output = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    return {
        "id": f"resp_{uuid.uuid4().hex[:20]}",
        "object": "response",
        "created_at": _CREATED,
        "model": call.response_model,
        "status": "completed",
        "output": [output | {"status": "completed"}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": call.prompt_tokens,
            "input_tokens_details": {"cached_tokens": call.cached_tokens},
            "output_tokens": call.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": call.reasoning_tokens},
            "total_tokens": call.prompt_tokens + call.completion_tokens,
        },
    }


def _response_events(call: Call, response: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    begun = response | {"status": "in_progress", "output": [], "usage": None}
    (item,) = response["output"]
    place = {"output_index": 0, "content_index": 0, "item_id": item["id"]}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        *(
            {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
            for piece in _pieces(call)
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    for number, event in enumerate(events):
        yield event["type"], event | {"sequence_number": number}
