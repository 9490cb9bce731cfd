"""Streams and generators that are observed until their end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from observatory_storage import (
    AsyncObservedStream,
    StoragePool,
    current_observation,
    observe,
    observe_llm,
)
from observatory_storage.recording.shared_writer import writer_of
from tests.recording.test_observe import spans, texts
from tests.writers.helpers import Row


class Chunks:
    """An iterator with attributes of its own, as the SDKs of providers have it."""

    response = "headers"

    def __init__(self, *chunks: str) -> None:
        self._chunks = iter(chunks)
        self.is_closed = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._chunks)

    def close(self) -> None:
        self.is_closed = True


class AsyncChunks:
    def __init__(self, *chunks: str) -> None:
        self._chunks = iter(chunks)
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        try:
            return next(self._chunks)
        except StopIteration:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        self.is_closed = True


def only(pool: StoragePool) -> Row:
    (row,) = spans(pool).values()
    return row


def completion(row: Row) -> list[str]:
    return texts(row["attributes"]["gen_ai.output.messages"])


def is_stored(pool: StoragePool) -> bool:
    return writer_of(pool).flush().committed > 0


def test_a_stream_within_a_block(pool: StoragePool) -> None:
    with observe_llm(pool, model="gpt-5") as call:
        stream = call.stream(Chunks("", "one ", "two"))
        assert stream.response == "headers"
        assert not hasattr(stream, "request")
        assert list(stream) == ["", "one ", "two"]
    row = only(pool)
    assert completion(row) == ["one two"]
    assert 0 < row["ttft_ms"] * 1000 <= row["duration_us"]


def test_a_stream_that_outlives_its_block_ends_the_span(pool: StoragePool) -> None:
    def begin() -> Iterator[str]:
        with observe_llm(pool, model="gpt-5") as call:
            return call.stream(Chunks("one ", "two"))

    stream = begin()
    assert next(stream) == "one "
    assert current_observation() is None
    assert not is_stored(pool)
    assert list(stream) == ["two"]
    assert completion(only(pool)) == ["one two"]


@pytest.mark.parametrize("end", ["close", "leave", "forget"])
def test_a_stream_that_is_not_read_to_its_end(pool: StoragePool, end: str) -> None:
    chunks = Chunks("one ", "two")
    with observe_llm(pool, model="gpt-5") as call:
        stream = call.stream(chunks)
    assert next(stream) == "one "
    assert not is_stored(pool)
    if end == "close":
        stream.close()
    elif end == "leave":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    assert chunks.is_closed == (end == "close")
    row = only(pool)
    assert (completion(row), row["status"]) == (["one "], "unset")


def test_a_stream_that_is_never_read(pool: StoragePool) -> None:
    with observe_llm(pool, model="gpt-5") as call:
        stream = call.stream(Chunks("one"))
    del stream
    gc.collect()
    assert only(pool)["ttft_ms"] is None


def broken() -> Iterator[str]:
    yield "one"
    raise ConnectionResetError("cut off")


def test_a_stream_that_fails(pool: StoragePool) -> None:
    @observe_llm(pool, model="gpt-5")
    def ask() -> Iterator[str]:
        return broken()

    with pytest.raises(ConnectionResetError, match="cut off"):
        list(ask())
    row = only(pool)
    assert (row["status"], row["status_message"], completion(row)) == ("error", "cut off", ["one"])


def test_a_function_that_returns_a_stream(pool: StoragePool) -> None:
    @observe_llm(pool, model="gpt-5")
    def ask(prompt: str) -> Iterator[str]:
        return Chunks("one ", "two")

    stream = ask("hi")
    assert not is_stored(pool)
    assert list(stream) == ["one ", "two"]
    row = only(pool)
    assert texts(row["attributes"]["gen_ai.input.messages"]) == ["hi"]
    assert completion(row) == ["one two"]


def test_a_generator_is_observed_until_its_end(pool: StoragePool) -> None:
    active: list[str | None] = []

    def note() -> None:
        step = current_observation()
        active.append(None if step is None else step.span_id)

    @observe_llm(pool, model="gpt-5", name="outer")
    def ask(prompt: str) -> Generator[str, str, int]:
        note()
        with observe(pool, name="inner"):
            sent = yield "one "
            note()
        note()
        try:
            yield sent
        except KeyError:
            return 3
        return 4

    with observe(pool, name="consumer"):
        stream = ask("hi")
        assert next(stream) == "one "
        note()
        assert stream.send("two") == "two"
        note()
        with pytest.raises(StopIteration) as stop:
            stream.throw(KeyError("x"))
        note()
    assert stop.value.value == 3
    found = spans(pool)
    outer, inner, consumer = (found[name] for name in ("outer", "inner", "consumer"))
    ids = {row["span_id"]: name for name, row in found.items()}
    names = [ids.get(span or "") for span in active]
    assert names == ["outer", "consumer", "inner", "outer", "consumer", "consumer"]
    assert outer["parent_span_id"] == consumer["span_id"]
    assert inner["parent_span_id"] == outer["span_id"]
    assert completion(outer) == ["one two"]
    assert outer["status"] == "unset"


def test_a_generator_that_is_closed_early(pool: StoragePool) -> None:
    closed = []

    @observe_llm(pool, model="gpt-5")
    def ask() -> Iterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            closed.append(current_observation())

    stream = ask()
    next(stream)
    del stream
    gc.collect()
    row = only(pool)
    assert (row["status"], completion(row)) == ("unset", ["one"])
    assert closed[0] is not None


def test_a_generator_that_fails(pool: StoragePool) -> None:
    with pytest.raises(ConnectionResetError):
        list(observe(pool, name="broken")(broken)())
    row = only(pool)
    assert (row["status"], row["attributes"]["output.value"]) == ("error", "one")


def test_async_streams(pool: StoragePool) -> None:
    chunks = AsyncChunks("one ", "two")

    @observe_llm(pool, model="gpt-5", name="returned")
    async def ask() -> Any:
        return chunks

    @observe_llm(pool, model="gpt-5", name="generated")
    async def generate() -> AsyncIterator[str]:
        with observe(pool, name="inner"):
            yield "three "
        yield "four"

    @observe_llm(pool, model="gpt-5", name="failed")
    async def fail() -> AsyncIterator[str]:
        yield "five"
        raise ConnectionResetError("cut off")

    async def main() -> None:
        stream = await ask()
        assert isinstance(stream, AsyncObservedStream)
        async with stream:
            assert await anext(stream) == "one "
            await stream.close()
        assert chunks.is_closed
        async with observe(pool, name="consumer") as consumer:
            async for _ in generate():
                assert current_observation() is consumer
        with pytest.raises(ConnectionResetError):
            async for _ in fail():
                pass

    asyncio.run(main())
    found = spans(pool)
    assert completion(found["returned"]) == ["one "]
    assert completion(found["generated"]) == ["three four"]
    assert found["generated"]["parent_span_id"] == found["consumer"]["span_id"]
    assert found["inner"]["parent_span_id"] == found["generated"]["span_id"]
    assert (found["failed"]["status"], completion(found["failed"])) == ("error", ["five"])


def test_an_async_generator_that_is_left_early(pool: StoragePool) -> None:
    closed = asyncio.Event()

    @observe_llm(pool, model="gpt-5")
    async def generate() -> AsyncIterator[str]:
        try:
            with observe(pool, name="inner"):
                yield "one"
                yield "two"
        finally:
            closed.set()

    async def main() -> None:
        async for _ in generate():
            break
        await closed.wait()  # by the event loop, in another context

    asyncio.run(main())
    found = spans(pool)
    assert completion(found["chat gpt-5"]) == ["one"]
    assert {row["status"] for row in found.values()} == {"unset"}


def test_a_cancelled_call_is_an_error(pool: StoragePool) -> None:
    @observe_llm(pool, model="gpt-5")
    async def ask() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(), 0.01)

    asyncio.run(main())
    row = only(pool)
    assert (row["status"], row["attributes"]["error.type"]) == (
        "error",
        "asyncio.exceptions.CancelledError",
    )


def test_a_context_manager_made_of_a_generator(pool: StoragePool) -> None:
    handled: list[str] = []

    @contextmanager
    @observe(pool, name="plain")
    def plain() -> Iterator[int]:
        try:
            yield 1
        except LookupError as error:
            handled.append(str(error))

    @asynccontextmanager
    @observe(pool, name="async")
    async def in_async() -> AsyncIterator[int]:
        try:
            yield 1
        except LookupError as error:
            handled.append(str(error))

    async def main() -> None:
        async with in_async():
            raise LookupError("two")

    def in_plain() -> None:
        with plain():
            raise LookupError("one")

    in_plain()
    asyncio.run(main())
    assert handled == ["one", "two"]
    assert {row["status"] for row in spans(pool).values()} == {"unset"}
