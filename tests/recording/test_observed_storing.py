"""Where observed calls and steps are stored, and what happens if that fails."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    ConnectionLost,
    StoragePool,
    TraceSpan,
    TraceWriter,
    WriterConfig,
    observe,
    observe_llm,
)
from observatory_storage.recording import shared_writer
from observatory_storage.recording.shared_writer import writer_of
from tests.recording.test_observe import spans
from tests.writers.helpers import fetch, quick_pool


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
