"""Recording by hand as its users write it, for the type checker alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from openai import OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from observatory_storage import (
    AsyncObservedStream,
    Observation,
    ObservedCall,
    ObservedStep,
    ObservedStream,
    StorageHandler,
    StoragePool,
    StructlogProcessor,
    TraceWriter,
    current_observation,
    observe,
    observe_llm,
)


async def decorators(pool: StoragePool, writer: TraceWriter) -> None:
    @observe_llm(pool, provider="openai", model="gpt-5")
    def ask(question: str, *, loud: bool = False) -> str:
        return question

    @observe(lambda: pool, kind="tool")
    async def weather(city: str) -> int:
        return len(city)

    @observe(writer)
    def count() -> Iterator[int]:
        yield 1

    assert_type(ask("hi", loud=True), str)
    assert_type(count(), Iterator[int])
    ask(3)  # type: ignore[arg-type]
    assert_type(await weather("Bern"), int)
    await weather("Bern", 3)  # type: ignore[call-arg]
    observe(kind="tol")  # type: ignore[arg-type]
    observe_llm("postgresql://")  # type: ignore[arg-type]


async def blocks(
    client: OpenAI, chunks: Stream[ChatCompletionChunk], words: AsyncIterator[str]
) -> None:
    with observe_llm(provider="openai", model="gpt-5") as call:
        assert_type(call, ObservedCall)
        call.response(client.chat.completions.create(model="gpt-5", messages=[]))
        stream = call.stream(chunks)
        assert_type(stream, ObservedStream[ChatCompletionChunk])
        for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
        assert_type(call.stream(words), AsyncObservedStream[str])
        call.update(completion="yes", prompt_tokens=3)
        call.update(prompt_token=3)  # type: ignore[call-arg]
    async with observe(name="step") as step:
        assert_type(step, ObservedStep)
        step.update(input={"city": "Bern"}, output=21)
        assert_type(step.traceparent, str)
    assert_type(current_observation(), Observation | None)


def handlers(pool: StoragePool) -> None:
    handler = StorageHandler(pool, level="INFO", extra=["customer"])
    assert_type(handler.lost, int)
    StructlogProcessor(pool, service_name="shop").close()
