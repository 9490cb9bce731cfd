"""Which functions `observe_llm` and `observe` decorate, and in which threads and tasks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from observatory_storage import (
    StoragePool,
    current_observation,
    observe,
    observe_llm,
)
from observatory_storage.recording import observer as observer_module
from observatory_storage.recording import shared_writer
from tests.recording.test_observe import spans, texts


def test_arguments_tell_the_request(pool: StoragePool) -> None:
    @observe_llm(pool, provider="openai")
    def ask(client: object, *, model: str, prompt: str, temperature: float = 1.0) -> object:
        return object

    ask(object(), model="gpt-5", prompt="hi", temperature=0.25)
    row = spans(pool)["chat gpt-5"]
    assert texts(row["attributes"]["gen_ai.input.messages"]) == ["hi"]
    assert row["attributes"]["gen_ai.request.temperature"] == 0.25


class Assistant:
    def __init__(self, pool: StoragePool) -> None:
        self.ask = observe_llm(pool, model="gpt-5", name="bound")(self._ask)

    def _ask(self, prompt: str) -> str:
        return prompt

    @observe_llm(lambda: POOLS[0], model="gpt-5", name="method")
    def answer(self, anything: str) -> str:
        return anything


POOLS: list[StoragePool] = []


def test_methods_and_functions_that_give_the_pool(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "POOLS", [pool])
    assistant = Assistant(pool)
    assert (assistant.ask("one"), assistant.answer("two")) == ("one", "two")
    found = spans(pool)
    assert texts(found["bound"]["attributes"]["gen_ai.input.messages"]) == ["one"]
    assert texts(found["method"]["attributes"]["gen_ai.input.messages"]) == ["two"]


def test_async_functions_and_tasks(pool: StoragePool) -> None:
    @observe_llm(pool, model="gpt-5")
    async def ask(prompt: str) -> str:
        await asyncio.sleep(0)
        inner = current_observation()
        assert inner is not None
        inner.update(name=prompt)
        return prompt

    async def main() -> None:
        async with observe(pool, name="both") as step:
            await asyncio.gather(ask("one"), ask("two"))
            assert current_observation() is step

    asyncio.run(main())
    found = spans(pool)
    parents = {name: row["parent_span_id"] for name, row in found.items()}
    both = found["both"]["span_id"]
    assert parents == {"both": None, "one": both, "two": both}


def test_threads_observe_with_one_object(pool: StoragePool) -> None:
    shared = observe(pool, kind="chain")
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        with shared as outer:
            outer.update(name=f"outer {number}")
            barrier.wait()
            with shared as inner:
                inner.update(name=f"inner {number}")
                barrier.wait()
            assert current_observation() is outer

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = spans(pool)
    assert len(found) == 8
    for number in range(4):
        inner, outer = found[f"inner {number}"], found[f"outer {number}"]
        assert inner["parent_span_id"] == outer["span_id"]


def numbers() -> Iterator[int]:
    yield 1


async def async_numbers() -> AsyncIterator[int]:
    yield 1


def test_decorated_functions_keep_their_kind_and_name(pool: StoragePool) -> None:
    import inspect

    async def coroutine() -> None: ...

    decorator = observe(pool)
    assert inspect.isgeneratorfunction(decorator(numbers))
    assert inspect.isasyncgenfunction(decorator(async_numbers))
    assert inspect.iscoroutinefunction(decorator(coroutine))
    assert decorator(numbers).__name__ == "numbers"


class Tools:
    @observe(lambda: POOLS[0], kind="tool")
    @staticmethod
    def add(one: int, two: int) -> int:
        return one + two

    @observe(lambda: POOLS[0], kind="tool")
    @classmethod
    def double(cls, one: int) -> int:
        return cls.add(one, one)


def test_static_and_class_methods(pool: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "POOLS", [pool])
    assert Tools().double(2) == 4
    found = spans(pool)
    add, double = found["Tools.add"], found["Tools.double"]
    assert add["parent_span_id"] == double["span_id"]
    assert double["attributes"]["gen_ai.tool.call.arguments"] == {"one": 2}


def test_an_async_function_in_a_plain_wrapper(pool: StoragePool) -> None:
    def logged(function: Any) -> Any:
        def logs(*args: Any) -> Any:
            return function(*args)

        return logs

    @observe_llm(pool, model="gpt-5", name="call")
    @logged
    async def ask(prompt: str) -> str:
        with observe(pool, name="inner"):
            await asyncio.sleep(0)
        return "answer"

    async def main() -> None:
        waiting = ask("hi")
        assert current_observation() is None
        assert await waiting == "answer"
        assert current_observation() is None

    asyncio.run(main())
    found = spans(pool)
    assert found["inner"]["parent_span_id"] == found["call"]["span_id"]
    assert texts(found["call"]["attributes"]["gen_ai.output.messages"]) == ["answer"]


def test_an_observer_that_is_left_elsewhere_ends_none_of_several(pool: StoragePool) -> None:
    observer = observe(pool, name="request")
    first, second = contextvars.Context(), contextvars.Context()
    first.run(observer.__enter__)
    second.run(observer.__enter__).set_attribute("who", "second")
    error = ValueError("of the first")
    contextvars.Context().run(observer.__exit__, ValueError, error, None)
    second.run(observer.__exit__, None, None, None)
    row = spans(pool)["request"]
    assert (row["attributes"]["who"], row["status"]) == ("second", "unset")


def test_what_is_never_left_does_not_fill_the_memory(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer_module, "_MOST_ENTERED", 3)
    observer = observe(pool, name="request")
    kept = contextvars.Context()
    kept.run(observer.__enter__).set_attribute("who", "kept")
    refs = [weakref.ref(contextvars.Context().run(observer.__enter__)) for _ in range(5)]
    lost = shared_writer.losses.lost
    contextvars.Context().run(observer.__exit__, None, None, None)
    assert shared_writer.losses.lost == lost + 1
    kept.run(observer.__exit__, None, None, None)  # it was pushed out, and is found nevertheless
    gc.collect()
    assert [ref() is None for ref in refs] == [True, True, False, False, False]
    assert spans(pool)["request"]["attributes"]["who"] == "kept"


def test_observations_that_have_ended_are_not_kept_by_those_begun_within(pool: StoragePool) -> None:
    with observe(pool, name="first") as first:
        within = contextvars.copy_context()
    former = weakref.ref(first)
    del first
    for number in range(3):
        context, within = within, contextvars.Context()
        observer = observe(pool, name=f"run {number}")
        context.run(observer.__enter__)
        within = context.run(contextvars.copy_context)
        context.run(observer.__exit__, None, None, None)
        del context, observer
    gc.collect()
    assert former() is None
