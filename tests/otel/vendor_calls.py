"""Calls of the OpenAI and the Anthropic SDK, as an application makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import anthropic
import openai
from anthropic.types import MessageParam, ToolParam
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.recordings.record.programs.conversation import (
    INSTRUCTIONS,
    QUESTION,
    REFUSED_QUESTION,
    RESULT,
    TOOL,
    TOOL_DESCRIPTION,
)

__all__ = ["ANTHROPIC_CALLS", "OPENAI_CALLS"]

Calls = Mapping[str, Callable[..., None]]

_SCHEMA: Final[dict[str, object]] = {
    "type": "object",
    "properties": {"harbour": {"type": "string"}},
}


class _OpenAI:
    """Each method makes the calls of one scenario.

    Args:
        url: of the server that answers as the vendor does.
        settings: further arguments of the client.
    """

    MODEL: Final = "gpt-5-mini"
    MESSAGES: Final[list[ChatCompletionMessageParam]] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": QUESTION},
    ]
    TOOLS: Final[list[ChatCompletionToolParam]] = [
        {
            "type": "function",
            "function": {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": _SCHEMA},
        }
    ]

    def __init__(self, url: str, **settings: Any) -> None:
        self._settings: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": "none",
            "max_retries": 0,
            **settings,
        }

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(**self._settings)

    def plain(self) -> None:
        with self.client() as client:
            client.chat.completions.create(model=self.MODEL, messages=self.MESSAGES)

    def stream(self) -> None:
        with self.client() as client:
            chunks = client.chat.completions.create(
                model=self.MODEL,
                messages=self.MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
            )
            for _ in chunks:
                pass

    def tool(self) -> None:
        messages = list(self.MESSAGES)
        with self.client() as client:
            answered = client.chat.completions.create(
                model=self.MODEL, messages=messages, tools=self.TOOLS
            )
            message = answered.choices[0].message
            (called,) = message.model_dump(include={"tool_calls"})["tool_calls"]
            messages.append({"role": "assistant", "content": None, "tool_calls": [called]})
            messages.append({"role": "tool", "tool_call_id": called["id"], "content": RESULT})
            client.chat.completions.create(model=self.MODEL, messages=messages, tools=self.TOOLS)

    def streamed_tool(self) -> None:
        with self.client() as client:
            chunks = client.chat.completions.create(
                model=self.MODEL,
                messages=self.MESSAGES,
                tools=self.TOOLS,
                stream=True,
                stream_options={"include_usage": True},
            )
            for _ in chunks:
                pass

    def error(self) -> None:
        with self.client() as client:
            try:
                client.chat.completions.create(
                    model=self.MODEL,
                    messages=[self.MESSAGES[0], {"role": "user", "content": REFUSED_QUESTION}],
                )
            except openai.RateLimitError:
                return
        raise AssertionError("the server did not refuse")

    def unreachable(self) -> None:
        settings = self._settings | {"base_url": "http://127.0.0.1:9/v1"}
        with openai.OpenAI(**settings) as client:
            try:
                client.chat.completions.create(model=self.MODEL, messages=self.MESSAGES)
            except openai.APIConnectionError:
                return
        raise AssertionError("there is a server on the port of discard")

    def awaited(self) -> None:
        async def call() -> None:
            async with openai.AsyncOpenAI(**self._settings) as client:
                await client.chat.completions.create(model=self.MODEL, messages=self.MESSAGES)

        asyncio.run(call())

    def awaited_stream(self) -> None:
        async def call() -> None:
            async with openai.AsyncOpenAI(**self._settings) as client:
                chunks = await client.chat.completions.create(
                    model=self.MODEL,
                    messages=self.MESSAGES,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async for _ in chunks:
                    pass

        asyncio.run(call())

    def responses(self) -> None:
        with self.client() as client:
            client.responses.create(model=self.MODEL, instructions=INSTRUCTIONS, input=QUESTION)

    def responses_stream(self) -> None:
        with self.client() as client:
            events = client.responses.create(
                model=self.MODEL, instructions=INSTRUCTIONS, input=QUESTION, stream=True
            )
            for _ in events:
                pass

    def embedding(self) -> None:
        with self.client() as client:
            client.embeddings.create(
                model="text-embedding-3-small", input=QUESTION, encoding_format="float"
            )


class _Anthropic:
    """Each method makes the calls of one scenario.

    Args:
        url: of the server that answers as the vendor does.
        settings: further arguments of the client.
    """

    ASKED: Final[dict[str, Any]] = {
        "model": "claude-harbour",  # the SDK warns of models that are going to end
        "max_tokens": 400,
        "system": INSTRUCTIONS,
    }
    MESSAGES: Final[list[MessageParam]] = [{"role": "user", "content": QUESTION}]
    TOOLS: Final[list[ToolParam]] = [
        {"name": TOOL, "description": TOOL_DESCRIPTION, "input_schema": _SCHEMA}
    ]

    def __init__(self, url: str, **settings: Any) -> None:
        self._settings: dict[str, Any] = {
            "base_url": url,
            "api_key": "none",
            "max_retries": 0,
            **settings,
        }

    def client(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(**self._settings)

    def plain(self) -> None:
        with self.client() as client:
            client.messages.create(**self.ASKED, messages=self.MESSAGES)

    def stream(self) -> None:
        with self.client() as client:
            for _ in client.messages.create(**self.ASKED, messages=self.MESSAGES, stream=True):
                pass

    def stream_helper(self) -> None:
        with (
            self.client() as client,
            client.messages.stream(**self.ASKED, messages=self.MESSAGES) as stream,
        ):
            stream.until_done()

    def tool(self) -> None:
        messages = list(self.MESSAGES)
        with self.client() as client:
            answered = client.messages.create(**self.ASKED, messages=messages, tools=self.TOOLS)
            (call,) = answered.content
            result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
            messages.append({"role": "assistant", "content": answered.content})
            messages.append({"role": "user", "content": [result]})
            client.messages.create(**self.ASKED, messages=messages, tools=self.TOOLS)

    def streamed_tool(self) -> None:
        with self.client() as client:
            for _ in client.messages.create(
                **self.ASKED, messages=self.MESSAGES, tools=self.TOOLS, stream=True
            ):
                pass

    def error(self) -> None:
        with self.client() as client:
            try:
                client.messages.create(
                    **self.ASKED, messages=[{"role": "user", "content": REFUSED_QUESTION}]
                )
            except anthropic.RateLimitError:
                return
        raise AssertionError("the server did not refuse")

    def unreachable(self) -> None:
        settings = self._settings | {"base_url": "http://127.0.0.1:9"}
        with anthropic.Anthropic(**settings) as client:
            try:
                client.messages.create(**self.ASKED, messages=self.MESSAGES)
            except anthropic.APIConnectionError:
                return
        raise AssertionError("there is a server on the port of discard")

    def awaited(self) -> None:
        async def call() -> None:
            async with anthropic.AsyncAnthropic(**self._settings) as client:
                await client.messages.create(**self.ASKED, messages=self.MESSAGES)

        asyncio.run(call())

    def awaited_stream(self) -> None:
        async def call() -> None:
            async with anthropic.AsyncAnthropic(**self._settings) as client:
                events = await client.messages.create(
                    **self.ASKED, messages=self.MESSAGES, stream=True
                )
                async for _ in events:
                    pass

        asyncio.run(call())


def _calls_of(vendor: type[_OpenAI | _Anthropic]) -> Calls:
    def call(name: str) -> Callable[..., None]:
        return lambda url, **settings: getattr(vendor(url, **settings), name)()

    names = [name for name in vars(vendor) if name.islower() and not name.startswith("_")]
    return {name: call(name) for name in names if name != "client"}


OPENAI_CALLS: Final = _calls_of(_OpenAI)
ANTHROPIC_CALLS: Final = _calls_of(_Anthropic)
