"""Readers give whole values, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import CopyWriter, SpanFilters, StoragePool, UnitOfWork
from tests.payloads.framed import move_stored
from tests.repositories.samples import (
    SECOND,
    START,
    a_span,
    an_event,
    span_key,
    statements,
    trace_key,
)

PROMPT = "Which river runs through Paris? " * 40
ANSWER = [{"role": "assistant", "content": "The Seine: 塞纳河. " * 30}]
TRACE = trace_key(1)


def spans() -> list[dict[str, Any]]:
    """A trace whose spans and events have large values, in two hours."""
    rows = [
        a_span(
            1,
            number,
            START + number * timedelta(minutes=20),
            start_ns=number,
            attributes={
                "gen_ai.prompt": f"{number} {PROMPT}",
                "gen_ai.output.messages": ANSWER,
                "small": number,
            },
            events=[an_event("gen_ai.choice", content=f"{number}: {PROMPT}"), an_event("small")],
        )
        for number in range(1, 5)
    ]
    return [*rows, a_span(1, 9, START + SECOND, attributes={"small": 9}), a_span(2, 1)]


@pytest.fixture
def stored(pool: StoragePool) -> StoragePool:
    """A pool on these rows, inline."""
    CopyWriter(pool).write_spans(spans())
    return pool


READERS: dict[str, tuple[int, Callable[[UnitOfWork], Any]]] = {
    "spans": (1, lambda uow: uow.traces.get_spans(TRACE)),
    "spans with events": (2, lambda uow: uow.traces.get_spans(TRACE, with_events=True)),
    "tree": (0, lambda uow: uow.traces.get_tree(TRACE)),
    "whole tree": (1, lambda uow: uow.traces.get_tree(TRACE, payload=True)),
    "span": (1, lambda uow: uow.traces.get_span(TRACE, span_key(1))),
    "small span": (0, lambda uow: uow.traces.get_span(TRACE, span_key(9))),
    "events": (1, lambda uow: uow.traces.get_events(TRACE)),
    "list": (0, lambda uow: uow.traces.list_spans()),
    "whole list": (1, lambda uow: uow.traces.list_spans(payload=True)),
    "stream": (0, lambda uow: list(uow.traces.iterate_spans(trace_id=TRACE))),
    "messages": (1, lambda uow: uow.traces.get_messages(TRACE, span_key(1))),
    "messages of a span": (
        1,
        lambda uow: uow.traces.get_messages(uow.traces.get_span(TRACE, span_key(1))),
    ),
}


def plain(answer: Any) -> Any:
    """What a reader answered, to compare."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return answer.to_dict() if hasattr(answer, "to_dict") else answer


@pytest.mark.parametrize("name", READERS)
def test_a_reader_answers_as_if_all_values_were_inline(stored: StoragePool, name: str) -> None:
    more, ask = READERS[name]
    with stored.unit_of_work() as uow, statements(stored.engine) as inline_statements:
        inline = plain(ask(uow))
    assert move_stored(stored) == 8
    with stored.unit_of_work() as uow, statements(stored.engine) as seen:
        assert plain(ask(uow)) == inline
    assert len(seen) == len(inline_statements) + more, seen


def test_a_stream_is_filled_batch_by_batch(stored: StoragePool) -> None:
    move_stored(stored)
    filters = SpanFilters(trace_id=TRACE)
    with stored.unit_of_work() as uow:
        read = list(uow.traces.iterate_spans(filters, 2, payload=True, oldest_first=True))
        whole = uow.traces.get_spans(TRACE)
    assert [span.to_dict() for span in read] == [span.to_dict() for span in whole]
    assert read[-1].attributes["gen_ai.prompt"] == f"4 {PROMPT}"
