"""Readers give whole values, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    SpanFilters,
    StoragePool,
    UnitOfWork,
    export_traces,
)
from observatory_storage.tables import PAYLOAD_FRAMES, SPANS
from tests.commands import runner
from tests.payloads.moved_rows import move_stored
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


def exported(pool: StoragePool) -> list[Any]:
    return list(export_traces(pool, ids=[TRACE, trace_key(2)], batch_size=3))


def test_an_export_has_whole_values(stored: StoragePool) -> None:
    inline = exported(stored)
    move_stored(stored)
    with statements(stored.engine) as seen:
        assert exported(stored) == inline
    of_frames = [statement for statement in seen if "payload_frames" in statement]
    assert len(of_frames) == 4  # for spans and for events of two pages


def test_facts_are_read_from_whole_values(stored: StoragePool) -> None:
    message = {"role": "assistant", "content": PROMPT, "finish_reason": "length"}
    row = a_span(
        3,
        1,
        attributes={"gen_ai.output.messages": [message], "gen_ai.agent.name": "Ann" + 90 * "!"},
        events=[an_event("exception", **{"exception.message": PROMPT})],
        status="error",
    )
    CopyWriter(stored).write_spans([row])
    columns = sa.select(SPANS.table).order_by(SPANS.table.c.trace_id, SPANS.table.c.span_id)
    with stored.engine.begin() as connection:
        before = connection.execute(columns).all()
    assert before[-1].status_message == PROMPT
    move_stored(stored)
    assert stored.refresh_facts().changed_spans == 0
    forgetting = sa.update(SPANS.table).values(status_message=None, finish_reason=None)
    with stored.engine.begin() as connection:
        connection.execute(forgetting)
    assert stored.refresh_facts().changed_spans == 1
    with stored.engine.begin() as connection:
        after = connection.execute(columns).all()
        frames = connection.scalar(sa.select(sa.func.count()).select_from(PAYLOAD_FRAMES.table))
    assert (after[-1].status_message, after[-1].finish_reason) == (PROMPT, before[-1].finish_reason)
    # The previews stay previews, and the values stay where they were.
    assert after[-1].attributes["gen_ai.output.messages"].endswith("…")
    assert frames == 3


def test_a_damaged_frame_is_logged_by_name_and_costs_only_itself(
    stored: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    move_stored(stored)
    first = sa.select(sa.func.min(PAYLOAD_FRAMES.table.c.start_time)).scalar_subquery()
    with stored.engine.begin() as connection:
        inline = connection.execute(sa.select(SPANS.table.c.attributes)).scalars().all()
        frames = PAYLOAD_FRAMES.table
        connection.execute(
            sa.update(frames).where(frames.c.start_time == first).values(data=b"damaged")
        )
    for read in (spans_of, exported):
        caplog.clear()
        text = str(read(stored))
        # Writers of other tests may still have a thread that logs.
        ours = "observatory_storage.payloads.opening"
        told = {(one.levelname, one.message) for one in caplog.records if one.name == ours}
        ((level, message),) = told
        assert level == "ERROR"
        assert f"of trace {TRACE}, 2026-01-01 12:00 UTC: " in message
        assert f"1 {PROMPT[:97]}" in text
        assert f"1 {PROMPT}" not in text
        assert f"4 {PROMPT}" in text
    with stored.unit_of_work() as uow:
        (one, *_) = uow.traces.get_spans(TRACE)
        assert one.payload_frame is None or one.attributes in inline
    assert stored.refresh_facts().changed_spans == 0


def spans_of(pool: StoragePool) -> list[Any]:
    with pool.unit_of_work() as uow:
        return [span.to_dict() for span in uow.traces.get_spans(TRACE)]


def test_values_that_move_while_they_are_read_are_found(stored: StoragePool) -> None:
    inline = spans_of(stored)
    move_stored(stored)
    moves = iter(range(2))

    def move(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        """Move all values to other frames before they are read."""
        if "JOIN" in statement and "payload_frames" in statement and next(moves, None) is not None:
            with stored.engine.connect() as other, other.begin():
                for table in ("trace_spans", "trace_events"):
                    other.exec_driver_sql(f"UPDATE {table} SET payload_frame = payload_frame + 1")
                other.exec_driver_sql("UPDATE payload_frames SET id = id + 1")

    sa.event.listen(stored.engine, "before_cursor_execute", move)
    assert spans_of(stored) == inline
    assert next(moves, None) is None


def test_spans_that_are_deleted_while_they_are_exported_are_left_out(stored: StoragePool) -> None:
    move_stored(stored)

    once = iter([True])

    def delete(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "payload_frames" in statement and next(once, False):
            with stored.unit_of_work() as uow:
                uow.traces.delete(TRACE)
                uow.commit()
            with stored.engine.begin() as other:
                other.execute(sa.delete(PAYLOAD_FRAMES.table))

    sa.event.listen(stored.engine, "before_cursor_execute", delete)
    names = [
        span["spanId"]
        for request in exported(stored)
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert names == [span_key(9), span_key(1)]


def test_the_command_line_shows_whole_values(
    stored: StoragePool,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    move_stored(stored)
    run = runner(monkeypatch, capfd, tmp_path)
    document = run("trace", TRACE, "--json", DATABASE_URL=database_url).document
    prompts = [span["attributes"].get("gen_ai.prompt") for span in document["spans"]]
    assert prompts[-1] == f"4 {PROMPT}"
    assert document["events"][0]["attributes"] == {"content": f"1: {PROMPT}"}
    assert f"4: {PROMPT}" in run("export", "traces", DATABASE_URL=database_url).out
