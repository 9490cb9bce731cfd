"""Sessions of users read previews, open them, and write whole attributes."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, defer, joinedload, selectinload

from observatory_storage import (
    CopyWriter,
    DamagedFrame,
    NotFound,
    StoragePool,
    Trace,
    TraceEvent,
    TraceSpan,
    TraceWriter,
    ValidationError,
    check_payloads,
    open_payloads,
)
from observatory_storage.payloads import unpack
from observatory_storage.tables import PAYLOAD_FRAMES
from tests.payloads.moved_rows import move_stored
from tests.repositories.samples import START, a_span, an_event, span_key, statements, trace_key

PROMPT = "Which river runs through Paris? " * 40
ATTRIBUTES: dict[str, Any] = {"prompt": PROMPT, "list": [{"text": PROMPT}], "small": {"n": 1}}
TRACE = trace_key(1)


@pytest.fixture
def moved(pool: StoragePool) -> StoragePool:
    """Two spans with an event each, whose large values stand in a frame."""
    events = [an_event(content=PROMPT)]
    rows = [a_span(1, number, attributes=ATTRIBUTES, events=events) for number in (1, 2)]
    CopyWriter(pool).write_spans(rows)
    assert move_stored(pool) == 4
    return pool


def stored(pool: StoragePool) -> tuple[dict[str, Any], int | None, dict[str, str] | None]:
    """The columns of the first span as they are stored."""
    columns = (TraceSpan.attributes, TraceSpan.payload_frame, TraceSpan.payload_digests)
    with pool.engine.connect() as connection:
        row = connection.execute(sa.select(*columns).where(TraceSpan.span_id == span_key(1))).one()
    return row[0], row[1], row[2]


def read(pool: StoragePool) -> dict[str, Any]:
    with pool.unit_of_work() as uow:
        return uow.traces.get_span(TRACE, span_key(1)).attributes


SPANS = sa.select(TraceSpan).order_by(TraceSpan.span_id)


def test_rows_of_a_session_have_previews_until_they_are_opened(moved: StoragePool) -> None:
    with_events = SPANS.options(selectinload(TraceSpan.events), joinedload(TraceSpan.trace))
    with Session(moved.engine) as session:
        spans = session.scalars(with_events).all()
        assert spans[0].attributes["prompt"] == PROMPT[:100] + "…"
        with statements(moved.engine) as seen:
            assert open_payloads(spans, session) == spans
            open_payloads(spans, session)
        assert len(seen) == 2  # for spans, and for events
        for span in spans:
            assert span.attributes == ATTRIBUTES
            assert span.events[0].attributes == {"content": PROMPT}
        assert not session.dirty
        assert session.scalars(SPANS).all() == spans
        session.commit()  # the rows expire
        assert spans[0].attributes["prompt"] == PROMPT[:100] + "…"
        assert open_payloads(spans[:1], session)[0].attributes == ATTRIBUTES


def test_spans_and_events_in_rows_of_results_are_opened(moved: StoragePool) -> None:
    joined = (
        sa.select(TraceSpan, TraceEvent, TraceSpan.name, TraceSpan.attributes, Trace)
        .join(TraceSpan.events)
        .join(TraceSpan.trace)
        .order_by(TraceSpan.span_id)
    )
    with Session(moved.engine) as session:
        rows = session.execute(joined).all()
        with statements(moved.engine) as seen:
            assert open_payloads(rows, session) == rows
        assert len(seen) == 2
        for row in rows:
            assert row.TraceSpan.attributes == ATTRIBUTES
            assert row.TraceEvent.attributes == {"content": PROMPT}
            # It is no row, so it stays as it was read.
            assert (row.name, row.attributes["prompt"]) == ("operation", PROMPT[:100] + "…")
        assert not session.dirty


def test_tuples_of_ones_own_are_opened_and_other_values_left(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        first, second = session.scalars(SPANS)
        given: list[Any] = [(1, (first, None)), "text", None, {"span": second}, [second]]
        assert open_payloads(given, session) == given
        assert first.attributes == ATTRIBUTES
        assert second.attributes["prompt"] == PROMPT[:100] + "…"


def test_an_outer_join_without_a_span_is_left(moved: StoragePool) -> None:
    spanless = {"trace_id": trace_key(9), "service_name": "service", "start_time": START}
    CopyWriter(moved).write_traces([spanless])
    joined = sa.select(Trace, TraceSpan).join(Trace.spans, isouter=True)
    with Session(moved.engine) as session:
        rows = open_payloads(session.execute(joined), session)
    found = [getattr(span, "attributes", None) for _, span in rows]
    assert sorted(found, key=bool) == [None, ATTRIBUTES, ATTRIBUTES]


def test_loaded_spans_of_traces_are_opened(moved: StoragePool) -> None:
    with_spans = sa.select(Trace).options(selectinload(Trace.spans).selectinload(TraceSpan.events))
    with Session(moved.engine) as session:
        with statements(moved.engine) as seen:
            (bare,) = open_payloads(session.scalars(sa.select(Trace)), session)
        assert len(seen) == 1
        (trace,) = session.scalars(with_spans.execution_options(populate_existing=True))
        assert trace is bare
        assert open_payloads([trace, (trace, trace.spans[0])], session)[0] is trace
        assert [span.attributes for span in trace.spans] == [ATTRIBUTES, ATTRIBUTES]
        assert trace.spans[0].events[0].attributes == {"content": PROMPT}


def test_relationships_still_do_not_load_by_themselves(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        (span,) = open_payloads(session.scalars(SPANS.limit(1)), session)
        with pytest.raises(sa.exc.InvalidRequestError, match="raise"):
            span.events  # noqa: B018


def test_attributes_that_were_deferred_are_loaded_and_opened(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        deferring = SPANS.options(defer(TraceSpan.attributes), defer(TraceSpan.payload_frame))
        (span, _) = open_payloads(session.scalars(deferring), session)
        assert span.attributes == ATTRIBUTES


def test_a_change_after_opening_is_stored_inline(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        (span,) = open_payloads(session.scalars(SPANS.limit(1)), session)
        span.attributes["ticket"] = 17
        session.commit()
    assert stored(moved) == ({**ATTRIBUTES, "ticket": 17}, None, None)
    assert read(moved) == {**ATTRIBUTES, "ticket": 17}


def test_opening_keeps_changes_that_are_not_yet_written(moved: StoragePool) -> None:
    with Session(moved.engine, autoflush=False) as session:
        (span,) = session.scalars(SPANS.limit(1))
        span.attributes["ticket"] = 17
        open_payloads([span], session)
        assert span.attributes == {**ATTRIBUTES, "ticket": 17}
        session.commit()
    assert stored(moved) == ({**ATTRIBUTES, "ticket": 17}, None, None)


def test_a_change_of_previews_loses_no_values(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        (span,) = session.scalars(SPANS.limit(1))
        span.attributes["ticket"] = 17
        span.attributes["list"] = "none"
        session.commit()
    assert stored(moved)[1] is not None
    assert read(moved) == {**ATTRIBUTES, "ticket": 17, "list": "none"}


def test_rows_of_a_repository_are_changed_as_before(moved: StoragePool) -> None:
    with moved.unit_of_work() as uow:
        span = uow.traces.get_span(TRACE, span_key(1), with_events=True)
        assert not uow.session.dirty
        span.attributes["list"][0]["text"] = "short"
        span.events[0].attributes["more"] = True
        uow.commit()
    expected = {**ATTRIBUTES, "list": [{"text": "short"}]}
    assert stored(moved) == (expected, None, None)
    with moved.unit_of_work() as uow:
        event, other = uow.traces.get_events(TRACE)
    assert event.attributes == {"content": PROMPT, "more": True}
    assert other.attributes == {"content": PROMPT}


def test_other_columns_leave_the_frame_alone(moved: StoragePool) -> None:
    before = stored(moved)
    with moved.unit_of_work() as uow:
        uow.traces.get_span(TRACE, span_key(1)).status_message = "looked into"
        uow.traces.list_spans()[0].status_message = "looked into"
        uow.commit()
    assert stored(moved) == before
    assert read(moved) == ATTRIBUTES


def test_attributes_of_a_list_without_payload_are_replaced(moved: StoragePool) -> None:
    with moved.unit_of_work() as uow:
        for span in uow.traces.list_spans():
            span.attributes = {"new": PROMPT}
        uow.commit()
    assert read(moved) == {"new": PROMPT}


def test_rows_are_merged_into_another_session(moved: StoragePool) -> None:
    with moved.unit_of_work() as uow:
        span = uow.traces.get_span(TRACE, span_key(1))
    span.attributes["ticket"] = 17
    with Session(moved.engine) as session:
        session.merge(span)
        session.commit()
    assert stored(moved) == ({**ATTRIBUTES, "ticket": 17}, None, None)


def test_a_row_with_previews_is_not_written(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        spans = session.scalars(SPANS.options(selectinload(TraceSpan.events))).all()
        with TraceWriter(moved) as writer:
            for given in ({**spans[0]}, spans[0], {**spans[0], "events": []}):
                with pytest.raises(ValidationError, match=r"payload_frame.*open_payloads"):
                    writer.write_span(given)
            open_payloads(spans, session)
            writer.write_span({**spans[0], "events": spans[0].events, "status": "error"})
    with moved.unit_of_work() as uow:
        span = uow.traces.get_span(TRACE, span_key(1), with_events=True)
    assert (span.status, span.attributes) == ("error", ATTRIBUTES)
    assert span.events[0].attributes == {"content": PROMPT}


def test_opening_tells_damaged_frames_and_deleted_rows(moved: StoragePool) -> None:
    with Session(moved.engine) as session:
        (span, other) = session.scalars(SPANS)
        with moved.engine.begin() as connection:
            connection.execute(sa.delete(TraceSpan).where(TraceSpan.span_id == span_key(2)))
            connection.execute(sa.text("DELETE FROM payload_frames"))
        with pytest.raises(DamagedFrame, match=rf"frame {span.payload_frame} of trace {TRACE}"):
            open_payloads([span], session)
        with pytest.raises(NotFound, match="deleted since"):
            open_payloads([other], session)
        assert span.attributes["prompt"] == PROMPT[:100] + "…"


def test_messages_of_a_row_with_previews_are_whole(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, attributes={"gen_ai.prompt": PROMPT})])
    move_stored(pool)
    with pool.unit_of_work() as uow:
        (span,) = uow.session.scalars(SPANS)
        (message,) = uow.traces.get_messages(span).input
    assert message.text == PROMPT


@pytest.mark.parametrize("deletes", [False, True])
def test_values_that_a_session_replaces_leave_the_frame(moved: StoragePool, deletes: bool) -> None:
    with moved.unit_of_work() as uow:
        span = uow.traces.get_span(TRACE, span_key(1), with_events=True)
        if deletes:
            for row in (*span.events, span):
                uow.session.add(row)
                uow.session.delete(row)
        else:
            span.attributes["prompt"] = "[redacted]"
            span.events[0].attributes = {"content": "[redacted]"}
        uow.commit()
    assert check_payloads(moved).problems == ()
    with moved.engine.connect() as connection:
        data = connection.scalars(sa.select(PAYLOAD_FRAMES.table.c.data)).all()
    assert {owner.span_id for one in data for owner in unpack(one)} == {span_key(2)}
