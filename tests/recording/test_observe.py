"""`observe_llm` and `observe`: what becomes of calls and steps."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage import (
    ObservedStep,
    StoragePool,
    TraceEvent,
    TraceSpan,
    ValidationError,
    current_observation,
    observe,
    observe_llm,
)
from observatory_storage.recording.shared_writer import writer_of
from tests.writers.helpers import Row, fetch


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
