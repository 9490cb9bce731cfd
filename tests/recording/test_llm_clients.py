"""What `observe_llm` reads of clients of OpenAI, and of the functions it decorates."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from openai import OpenAI

from observatory_storage import StoragePool, ValidationError, observe, observe_llm
from tests.recording.test_llm_sdks import CHAT, CHAT_CHUNKS, COUNTS, PARTS, check, stored

QUESTION: Any = [{"role": "user", "content": "rain?"}]


@contextmanager
def openai_client(body: str, content_type: str = "application/json") -> Iterator[OpenAI]:
    """A client of a server on loopback that answers with this body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            with OpenAI(api_key="none", base_url=url) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def test_a_raw_response_is_read(pool: StoragePool) -> None:
    with openai_client(json.dumps(CHAT)) as client:

        @observe_llm(pool, provider="openai", model="gpt-5")
        def ask() -> Any:
            raw = client.chat.completions.with_raw_response
            return raw.create(model="gpt-5", messages=QUESTION)

        assert ask().parse().id == "chatcmpl-1"
    check(stored(pool), PARTS, COUNTS)


def test_a_raw_response_that_is_not_read_yet_is_left_to_the_application(pool: StoragePool) -> None:
    with openai_client(json.dumps(CHAT)) as client:
        completions = client.chat.completions.with_streaming_response
        with completions.create(model="gpt-5", messages=QUESTION) as response:

            @observe_llm(pool, provider="openai", model="gpt-5")
            def ask() -> Any:
                return response

            assert b"chatcmpl-1" in b"".join(ask().iter_bytes())
    assert "gen_ai.output.messages" not in stored(pool)["attributes"]


def test_the_streaming_helper_of_openai(pool: StoragePool) -> None:
    chunks = [*CHAT_CHUNKS[:-1], CHAT_CHUNKS[-1].model_copy(update={"service_tier": "flex"})]
    events = [*(chunk.model_dump_json(exclude_none=True) for chunk in chunks), "[DONE]"]
    body = "".join(f"data: {event}\n\n" for event in events)
    with (
        openai_client(body, "text/event-stream") as client,
        observe_llm(pool, provider="openai", model="gpt-5") as call,
        client.chat.completions.stream(model="gpt-5", messages=QUESTION) as stream,
    ):
        kinds = {event.type for event in call.stream(stream)}
    assert {"chunk", "content.delta"} <= kinds
    row = stored(pool)
    check(row, PARTS, COUNTS)
    assert row["ttft_ms"] > 0
    assert row["attributes"]["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert row["attributes"]["openai.response.service_tier"] == "flex"


def test_embeddings_name_their_operation(pool: StoragePool) -> None:
    with observe_llm(pool, provider="openai", model="embedder") as call:
        embedding = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        call.response({"object": "list", "data": [embedding], "usage": usage})
    assert stored(pool)["name"] == "embeddings embedder"


@pytest.mark.parametrize("capture", [True, False])
def test_arguments_among_keywords_are_read(pool: StoragePool, capture: bool) -> None:
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}

    @observe_llm(pool, provider="openai", capture_content=capture)
    def ask(**options: Any) -> str:
        return f"{len(options)} options"

    ask(model="gpt-5", input="rain?", instructions="Be brief.", tools=[tool, len], temperature=0.5)
    row = stored(pool)
    attributes = row["attributes"]
    assert (row["model"], attributes["gen_ai.request.temperature"]) == ("gpt-5", 0.5)
    if capture:
        assert "rain?" in str(attributes["gen_ai.input.messages"])
        assert "Be brief." in str(attributes["gen_ai.system_instructions"])
        assert attributes["gen_ai.tool.definitions"] == [tool]
    else:
        assert not attributes.keys() & {
            "gen_ai.input.messages",
            "gen_ai.system_instructions",
            "gen_ai.tool.definitions",
        }


def test_a_decorator_without_parentheses_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValidationError, match=r"with parentheses, @observe_llm\(\)"):

        @observe_llm  # type: ignore[arg-type]
        def ask(question: str) -> str:
            return question

    with pytest.raises(ValidationError, match=r"with parentheses, @observe\(\)"):

        @observe  # type: ignore[arg-type]
        def step(self: object) -> None: ...
