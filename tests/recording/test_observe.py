"""`observe_llm` and `observe`: what becomes of calls and steps."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    ConnectionLost,
    ObservedStep,
    StoragePool,
    TraceEvent,
    TraceSpan,
    TraceWriter,
    ValidationError,
    WriterConfig,
    current_observation,
    observe,
    observe_llm,
)
from observatory_storage.recording import observer as observer_module
from observatory_storage.recording import shared_writer
from observatory_storage.recording.shared_writer import writer_of
from tests.writers.helpers import Row, fetch, quick_pool


def spans(pool: StoragePool) -> dict[str, Row]:
    """The stored spans by name."""
    writer_of(pool).flush()
    rows = fetch(pool, TraceSpan, "start_time")
    named = {row["name"]: row for row in rows}
    assert len(named) == len(rows)
    return named


def texts(messages: Any) -> list[str]:
    return [part["content"] for message in messages for part in message["parts"]]


def test_a_call_becomes_a_span_with_its_columns(pool: StoragePool) -> None:
    with observe_llm(
        pool,
        provider="openai",
        model="gpt-5",
        service_name="shop",
        session_id="s-1",
        user_id="ann",
        environment="test",
        prompt="What is a pen?",
        temperature=0.5,
        max_tokens=100,
        attributes={"shelf": 3},
    ) as call:
        call.update(
            completion="A tool.",
            prompt_tokens=7,
            completion_tokens=2,
            total_cost_usd="0.001",
            finish_reasons=["stop"],
        )
        call.set_attribute("row", 4)
        call.add_event("moderated", {"score": 0.1})
    row = spans(pool)["chat gpt-5"]
    assert row["trace_id"].hex == call.trace_id
    assert row["span_id"] == call.span_id
    assert row["parent_span_id"] is None
    assert (row["provider"], row["model"], row["operation"]) == ("openai", "gpt-5", "chat")
    assert (row["service_name"], row["session_id"], row["user_id"]) == ("shop", "s-1", "ann")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (7, 2, 9)
    assert str(row["total_cost_usd"]) == "0.001"
    assert row["status"] == "unset"
    assert row["kind"] == "client"
    attributes = row["attributes"]
    assert texts(attributes["gen_ai.input.messages"]) == ["What is a pen?"]
    assert texts(attributes["gen_ai.output.messages"]) == ["A tool."]
    assert (attributes["shelf"], attributes["row"]) == (3, 4)
    assert row["resource_attributes"]["deployment.environment.name"] == "test"
    (event,) = fetch(pool, TraceEvent)
    assert (event["name"], event["attributes"]) == ("moderated", {"score": 0.1})


def test_calls_within_steps_are_their_children(pool: StoragePool) -> None:
    @observe_llm(pool, provider="openai", model="gpt-5")
    def ask(question: str) -> str:
        return f"answer to {question}"

    @observe(pool, kind="tool")
    def weather(city: str) -> dict[str, int]:
        return {"celsius": len(city)}

    @observe(pool, kind="agent", name="helper", session_id="s-1", user_id="ann", environment="test")
    def help_with(question: str) -> str:
        weather("Bern")
        return ask(question)

    assert help_with("rain?") == "answer to rain?"
    found = spans(pool)
    agent, tool, call = found["helper"], found["weather"], found["chat gpt-5"]
    assert agent["parent_span_id"] is None
    assert tool["parent_span_id"] == call["parent_span_id"] == agent["span_id"]
    assert {row["trace_id"] for row in found.values()} == {agent["trace_id"]}
    assert {(row["session_id"], row["user_id"]) for row in found.values()} == {("s-1", "ann")}
    assert {
        row["resource_attributes"]["deployment.environment.name"] for row in found.values()
    } == {"test"}
    assert (agent["operation"], tool["operation"]) == ("invoke_agent", "execute_tool")
    assert agent["attributes"]["gen_ai.agent.name"] == "helper"
    assert agent["attributes"]["input.value"] == '{"question":"rain?"}'
    assert agent["attributes"]["output.value"] == "answer to rain?"
    assert tool["attributes"]["gen_ai.tool.call.arguments"] == {"city": "Bern"}
    assert tool["attributes"]["gen_ai.tool.call.result"] == {"celsius": 4}
    assert texts(call["attributes"]["gen_ai.input.messages"]) == ["rain?"]
    assert texts(call["attributes"]["gen_ai.output.messages"]) == ["answer to rain?"]


def test_what_the_application_tells_is_better_than_what_is_read(pool: StoragePool) -> None:
    @observe_llm(pool, provider="openai", model="gpt-5")
    def ask(prompt: str) -> str:
        call = current_observation()
        assert call is not None
        call.update(name="ask", user_id="ann")
        return prompt.upper()

    @observe(pool)
    def step() -> str:
        inner = current_observation()
        assert isinstance(inner, ObservedStep)
        inner.update(output="told", name="step")
        return "returned"

    assert (ask("hi"), step()) == ("HI", "returned")
    found = spans(pool)
    assert found["ask"]["user_id"] == "ann"
    assert found["step"]["attributes"]["output.value"] == "told"
    assert current_observation() is None


class OutOfStockError(Exception):
    pass


def test_an_exception_is_recorded_and_raised(pool: StoragePool) -> None:
    @observe_llm(pool, provider="openai", model="gpt-5")
    def ask(prompt: str) -> str:
        raise OutOfStockError("no pens")

    with pytest.raises(OutOfStockError), observe(pool, name="order"):
        ask("pens?")
    for row in spans(pool).values():
        assert (row["status"], row["status_message"]) == ("error", "no pens")
        assert row["attributes"]["error.type"].endswith("test_observe.OutOfStockError")
    events = fetch(pool, TraceEvent)
    assert [event["name"] for event in events] == ["exception", "exception"]
    for event in events:
        assert event["attributes"]["exception.stacktrace"].endswith("OutOfStockError: no pens")


def test_an_exception_that_is_handled_can_be_told(pool: StoragePool) -> None:
    with observe(pool, name="order") as step:
        step.fail(OutOfStockError("no pens"))
    assert spans(pool)["order"]["status"] == "error"


def test_contents_need_not_be_stored(pool: StoragePool) -> None:
    @observe_llm(pool, model="gpt-5", capture_content=False)
    def ask(prompt: str) -> str:
        return "secret answer"

    @observe(pool, name="step", capture_content=False)
    def step(value: str) -> str:
        return value

    ask("secret")
    step("secret")
    with observe_llm(pool, model="gpt-4", prompt="secret", capture_content=False) as call:
        call.update(completion="secret", prompt_tokens=3)
        call.response("secret")
        assert list(call.stream(["secret"])) == ["secret"]
    found = spans(pool)
    assert len(found) == 3
    assert "secret" not in str(found)
    assert found["chat gpt-4"]["prompt_tokens"] == 3


def test_messages_are_stored_as_they_were_sent(pool: StoragePool) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with observe_llm(pool, model="gpt-5", input_messages=messages) as call:
        messages.append({"role": "assistant", "content": "hello"})
        call.response("hello")

    @observe_llm(pool, name="decorated", model="gpt-5")
    def ask(messages: list[Any]) -> str:
        messages.append("more")
        return "hello"

    ask([{"role": "user", "content": "hi"}])
    for row in spans(pool).values():
        assert texts(row["attributes"]["gen_ai.input.messages"]) == ["hi"]


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


def test_a_header_continues_a_trace(pool: StoragePool) -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    with observe(pool, name="continued", parent=header) as step:
        assert step.traceparent == f"00-0af7651916cd43dd8448eb211c80319c-{step.span_id}-00"
    row = spans(pool)["continued"]
    assert row["trace_id"].hex == "0af7651916cd43dd8448eb211c80319c"
    assert row["parent_span_id"] == "b7ad6b7169203331"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
    ],
)
def test_a_malformed_header_begins_a_trace(pool: StoragePool, header: str) -> None:
    with observe(pool, name="step", parent=header) as step:
        assert step.parent_span_id is None
        assert step.traceparent.endswith("-01")


def test_a_header_of_a_later_version_is_read(pool: StoragePool) -> None:
    header = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
    with observe(pool, parent=header) as step:
        assert step.trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "postgresql://a:b@c/d"}, r"^pool=<class 'str'>: must be a StoragePool, a"),
        ({"provider": 3}, "^provider=3: must be text"),
        ({"model": ""}, "^model='': must be text"),
        ({"temperature": "hot"}, "^temperature='hot': must be a finite number"),
        ({"attributes": "a"}, "^attributes='a': must be a mapping"),
        ({"parent": 3}, "^parent=3: must be a traceparent header"),
        ({"capture_content": 1}, "^capture_content=1: must be true or false"),
        ({"prompt": "a", "input_messages": ["a"]}, "^prompt='a': says the same"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        observe_llm(**options)


def test_a_wrong_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"^kind='tol': must be one of step, agent"):
        observe(kind="tol")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"^function=3: must be a function"):
        observe(name="step")(3)  # type: ignore[type-var]
    with pytest.raises(ValidationError, match=r"^function=<class 'object'>: must be a function"):
        observe(name="step")(object)


def test_a_value_that_cannot_be_stored_is_left_out(
    pool: StoragePool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_writer.repairs, "_next", {})
    with observe_llm(pool, model="gpt-5", prompt="hi") as call:
        call.update(prompt_tokens="three", user_id="ann", temperature="hot")  # type: ignore[arg-type]
    row = spans(pool)["chat gpt-5"]
    assert (row["prompt_tokens"], row["user_id"]) == (None, "ann")
    assert "temperature='hot': must be a finite number" in caplog.text


def test_a_writer_of_the_applications_own(pool: StoragePool) -> None:
    with TraceWriter(pool, WriterConfig(flush_interval_secs=None)) as writer:
        with observe_llm(writer, model="gpt-5"):
            pass
        assert writer.flush().committed == 1


def test_a_closed_pool_loses_spans_without_an_error(pool: StoragePool) -> None:
    with observe(pool, name="before"):
        pass
    pool.close()  # flushes first
    lost = shared_writer.losses.lost
    with observe(pool, name="after"):
        pass
    assert shared_writer.losses.lost == lost + 1


def test_closing_the_pool_flushes(database_url: str) -> None:
    with quick_pool(database_url) as pool, observe(pool, name="step"):
        pass
    with quick_pool(database_url) as pool:
        assert [row["name"] for row in fetch(pool, TraceSpan)] == ["step"]


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


class Hostile:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")


def test_hostile_values_disturb_nobody(pool: StoragePool) -> None:
    hostile = Hostile()

    @observe(pool, name="step")
    def step(value: object) -> object:
        return value

    @observe_llm(pool, model="gpt-5", name="call")
    def ask(messages: object) -> object:
        return hostile

    assert step(hostile) is hostile
    assert ask(hostile) is hostile
    with observe_llm(pool, model="gpt-5", name="block") as call:
        call.response(hostile)
        call.response(mock.MagicMock())
        call.update(attributes=3, input_messages=3)  # type: ignore[arg-type]
        call.add_event("event", 3)  # type: ignore[arg-type]
        call.set_attribute("hostile", hostile)
        assert next(call.stream([hostile])) is hostile
        assert len(list(call.stream([mock.MagicMock()]))) == 1
    with observe(pool, name="last") as last:
        last.update(input=hostile, output=hostile, attributes=3)  # type: ignore[arg-type]
    found = spans(pool)
    assert found.keys() == {"step", "call", "block", "last"}
    assert {row["status"] for row in found.values()} == {"unset"}


def test_a_span_that_ends_while_another_is_written_waits(pool: StoragePool) -> None:
    inner = observe(pool, name="inner")

    def other_pool() -> StoragePool:
        with inner:
            order.append("inner ended")
        order.append("outer written")
        return pool

    order: list[str] = []
    with observe(other_pool, name="outer"):
        pass
    assert order == ["inner ended", "outer written"]
    assert spans(pool).keys() == {"inner", "outer"}


def test_what_is_over_keeps_no_contents(pool: StoragePool) -> None:
    with observe_llm(pool, model="gpt-5", prompt="secret", session_id="s-1") as call:
        call.update(completion="secret")
        call.set_attribute("shelf", "secret")
    assert "secret" not in str(vars(call))
    call.enter()
    with observe(pool, name="later"):
        pass
    call.leave()
    later = spans(pool)["later"]
    assert (later["parent_span_id"], later["session_id"]) == (call.span_id, "s-1")


def test_spans_come_later_when_the_database_was_away(embedded_server: EmbeddedPostgres) -> None:
    with quick_pool(embedded_server.url) as pool:
        pool.run_migrations()
        with observe(pool, name="before"):
            pass
        writer_of(pool).flush()
        embedded_server.stop()

        def work(number: int) -> None:
            for step in range(20):
                with observe(pool, name=f"{number} {step}"):
                    pass

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(ConnectionLost):
            writer_of(pool).flush()
        embedded_server.start()
        assert len(spans(pool)) == 81


def test_threads_that_begin_at_once_share_a_writer(pool: StoragePool) -> None:
    barrier = threading.Barrier(8)
    writers: list[TraceWriter] = []

    def work() -> None:
        barrier.wait()
        writers.append(writer_of(pool))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(writers) == 8
    assert len(set(map(id, writers))) == 1


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
