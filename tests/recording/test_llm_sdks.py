"""Responses and chunks of the SDKs of OpenAI and Anthropic, read by `ObservedCall`."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from observatory_storage import StoragePool, TraceSpan, observe_llm
from observatory_storage.recording.llm_response import read_response
from observatory_storage.recording.shared_writer import writer_of
from tests.writers.helpers import Row, fetch

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5-2025-08-07",
    "service_tier": "priority",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Let me see.",
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                    }
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 4},
    },
}
PARTS = [
    {"type": "text", "content": "Let me see."},
    {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": '{"city": "Bern"}'},
]
COUNTS = (20, 10, 30)
DETAILS = {"prompt_cache_read": 8, "completion_reasoning": 4}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1.0,
    "model": "gpt-5-2025-08-07",
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"city": "Bern"}',
            "status": "completed",
        },
    ],
    "usage": {
        "input_tokens": 20,
        "output_tokens": 10,
        "total_tokens": 30,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 4},
    },
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "content": [
        {"type": "thinking", "thinking": "They ask for rain.", "signature": "x"},
        {"type": "text", "text": "Let me see.", "citations": None},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bern"}},
    ],
    "usage": {
        "input_tokens": 10,
        "output_tokens": 10,
        "cache_read_input_tokens": 8,
        "cache_creation_input_tokens": 2,
        "cache_creation": {"ephemeral_1h_input_tokens": 2, "ephemeral_5m_input_tokens": 0},
    },
}


def stored(pool: StoragePool) -> Row:
    writer_of(pool).flush()
    (row,) = fetch(pool, TraceSpan)
    return row


def check(row: Row, parts: list[dict[str, Any]], counts: tuple[int, int, int]) -> None:
    (message,) = row["attributes"]["gen_ai.output.messages"]
    assert message["role"] == "assistant"
    assert message["parts"] == parts
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == counts


@pytest.mark.parametrize("of", [ChatCompletion.model_validate, dict], ids=["object", "mapping"])
def test_a_chat_completion(pool: StoragePool, of: Any) -> None:
    with observe_llm(pool, provider="openai", model="gpt-5") as call:
        call.response(of(CHAT))
    row = stored(pool)
    check(row, PARTS, COUNTS)
    assert row["token_details"] == DETAILS
    assert (row["model"], row["response_model"]) == ("gpt-5", "gpt-5-2025-08-07")
    assert row["attributes"]["gen_ai.response.id"] == "chatcmpl-1"
    assert row["attributes"]["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert row["attributes"]["openai.response.service_tier"] == "priority"


@pytest.mark.parametrize("of", [Response.model_validate, dict], ids=["object", "mapping"])
def test_a_response(pool: StoragePool, of: Any) -> None:
    @observe_llm(pool, provider="openai", model="gpt-5")
    def ask(input: str) -> Any:  # noqa: A002 - the SDK's name
        return of(RESPONSE)

    ask("rain?")
    row = stored(pool)
    check(row, PARTS, COUNTS)
    assert row["token_details"] == DETAILS
    assert row["attributes"]["gen_ai.response.finish_reasons"] == ["tool_calls"]


@pytest.mark.parametrize("of", [AnthropicMessage.model_validate, dict], ids=["object", "mapping"])
def test_a_message(pool: StoragePool, of: Any) -> None:
    with observe_llm(pool, provider="anthropic") as call:
        call.response(of(MESSAGE))
    row = stored(pool)
    thought = {"type": "reasoning", "content": "They ask for rain."}
    check(row, [thought, PARTS[0], {**PARTS[1], "arguments": {"city": "Bern"}}], (20, 10, 30))
    assert row["token_details"] == {
        "prompt_cache_read": 8,
        "prompt_cache_write": 2,
        "prompt_cache_write_1h": 2,
    }
    assert row["model"] == "claude-sonnet-5"
    assert row["attributes"]["gen_ai.response.finish_reasons"] == ["tool_use"]


def test_embeddings_and_completions(pool: StoragePool) -> None:
    embeddings = CreateEmbeddingResponse.model_validate(
        {
            "object": "list",
            "model": "embedder",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        }
    )
    found = read_response(embeddings)
    assert (found["prompt_tokens"], found["response_model"]) == (5, "embedder")
    assert "output_messages" not in found
    assert found["operation"] == "embeddings"
    completion = Completion.model_validate(
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "davinci",
            "choices": [{"index": 0, "text": "yes", "finish_reason": "stop", "logprobs": None}],
        }
    )
    assert read_response(completion)["operation"] == "text_completion"
    (message,) = read_response(completion)["output_messages"]
    assert message["parts"] == [{"type": "text", "content": "yes"}]


@pytest.mark.parametrize("response", [None, 3, b"x", [], {}, SimpleNamespace(usage=None), object()])
def test_another_object_tells_nothing(pool: StoragePool, response: Any) -> None:
    with observe_llm(pool, model="gpt-5") as call:
        call.response(response)
        assert list(call.stream([response])) == [response]
    row = stored(pool)
    assert "gen_ai.output.messages" not in row["attributes"]
    assert row["status"] == "unset"


def chat_chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> Any:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return ChatCompletionChunk.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-5-2025-08-07",
            "choices": choices,
            **fields,
        }
    )


def call_delta(arguments: str, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **fields.pop("function", {})}
    return {"tool_calls": [{"index": 0, "function": function, **fields}]}


CHAT_CHUNKS = [
    chat_chunk({"role": "assistant", "content": ""}),
    chat_chunk({"content": "Let me "}),
    chat_chunk({"content": "see."}),
    chat_chunk(call_delta("", id="call_1", type="function", function={"name": "weather"})),
    chat_chunk(call_delta('{"city": ')),
    chat_chunk(call_delta('"Bern"}')),
    chat_chunk({}, "tool_calls"),
    chat_chunk({}, choices=[], usage=CHAT["usage"]),
]
RESPONSE_EVENTS = [
    {
        "type": "response.created",
        "sequence_number": 0,
        "response": {**RESPONSE, "status": "in_progress", "output": [], "usage": None},
    },
    {
        "type": "response.output_text.delta",
        "sequence_number": 1,
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Let me see.",
        "logprobs": [],
    },
    {
        "type": "response.output_item.added",
        "sequence_number": 2,
        "output_index": 1,
        "item": {**RESPONSE["output"][1], "arguments": ""},  # type: ignore[index]
    },
    {
        "type": "response.function_call_arguments.delta",
        "sequence_number": 3,
        "item_id": "fc_1",
        "output_index": 1,
        "delta": '{"city": "Bern"}',
    },
    {"type": "response.completed", "sequence_number": 4, "response": RESPONSE},
]
MESSAGE_EVENTS = [
    {
        "type": "message_start",
        "message": {
            **MESSAGE,
            "content": [],
            "stop_reason": None,
            "usage": {**MESSAGE["usage"], "output_tokens": 1},  # type: ignore[dict-item]
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": "", "citations": None},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Let me "},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "see."}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"city": "Bern"}'},
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 10},
    },
    {"type": "message_stop"},
]


def objects(kind: Any, events: Sequence[object]) -> list[Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return [adapter.validate_python(event) for event in events]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        (CHAT_CHUNKS, "tool_calls"),
        ([chunk.model_dump() for chunk in CHAT_CHUNKS], "tool_calls"),
        (objects(ResponseStreamEvent, RESPONSE_EVENTS), "tool_calls"),
        (objects(RawMessageStreamEvent, MESSAGE_EVENTS), "tool_use"),
    ],
    ids=["chat", "mappings", "responses", "messages"],
)
def test_streamed_chunks_are_put_together(
    pool: StoragePool, chunks: list[Any], reason: str
) -> None:
    with observe_llm(pool, provider="openai", model="gpt-5") as call:
        stream = iter(call.stream(chunks))
        next(stream)
        assert "ttft_ms" not in call._given
        rest = list(stream)
        assert rest == chunks[1:]
    row = stored(pool)
    check(row, PARTS, COUNTS)
    assert row["ttft_ms"] > 0
    assert row["attributes"]["gen_ai.response.finish_reasons"] == [reason]
    assert row["token_details"]["prompt_cache_read"] == 8


def test_a_stream_of_responses_that_is_cut_off_keeps_its_beginning(pool: StoragePool) -> None:
    with observe_llm(pool, provider="openai", model="gpt-5") as call:
        list(call.stream(objects(ResponseStreamEvent, RESPONSE_EVENTS[:-1])))
    (message,) = stored(pool)["attributes"]["gen_ai.output.messages"]
    assert message["parts"] == PARTS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"output": RESPONSE["output"][:1]}, "stop"),  # type: ignore[index]
        ({"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"}, "length"),
        ({"status": "failed"}, "error"),
    ],
)
def test_the_end_of_a_response_is_named_as_that_of_a_chat(
    changes: dict[str, Any], reason: str
) -> None:
    response = Response.model_validate({**RESPONSE, **changes})
    assert read_response(response)["finish_reasons"] == [reason]
