"""Entities are what a session would have loaded, but that no session holds them."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from observatory_storage import (
    CopyWriter,
    StorageError,
    StoragePool,
    TraceRepository,
    ValidationError,
)
from observatory_storage.models import Base, Trace, TraceEvent, TraceSpan
from tests.repositories.lists import LISTS, Listing
from tests.repositories.samples import a_span, an_event, statements, trace_key

each_list = pytest.mark.parametrize("listing", LISTS, ids=lambda listing: listing.name)


def columns_of(entity: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(entity).items() if name != "_sa_instance_state"}


@each_list
def test_an_entity_equals_the_instance_that_a_session_loads(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, [1])
    with pool.unit_of_work() as uow:
        (entity,) = listing.page(uow, limit=1)
        state = inspect(entity)
        assert state.detached
        assert not state.modified
        own = uow.session.get_one(type(entity), state.identity)
        assert own is not entity
        assert state.key == inspect(own).key
        loaded, expected = columns_of(entity), columns_of(own)
        assert len(loaded) > 10
        assert {name: expected[name] for name in loaded} == loaded
        for name in expected.keys() - loaded.keys():
            with pytest.raises(StorageError, match=rf"\.{name} was not loaded"):
                getattr(entity, name)


@each_list
def test_an_entity_can_be_pickled_and_merged(pool: StoragePool, listing: Listing) -> None:
    listing.write(pool, [1])
    with pool.unit_of_work() as uow:
        (entity,) = listing.page(uow, limit=1)
        copy = pickle.loads(pickle.dumps(entity))
        assert columns_of(copy) == columns_of(entity)
        with statements(pool.engine) as seen:
            merged = uow.session.merge(entity)
            uow.session.flush()
        assert len(seen) == 1  # it was read, and nothing had changed
        assert merged in uow.session
        assert entity not in uow.session
        assert inspect(entity).detached


def test_objects_in_the_session_stay_unchanged(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, events=[an_event()])])
    with pool.unit_of_work() as uow:
        listed = uow.traces.get_by_trace_id(trace_key(1))
        own = uow.session.get_one(type(listed), listed.id)
        own.service_name = "changed here"
        again = uow.traces.get_by_trace_id(trace_key(1))
        assert again.service_name == "service"
        assert own in uow.session
        assert own in uow.session.dirty


def test_a_session_may_choose_the_engine_by_the_entity(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with Session(binds={Base: pool.engine}) as session:
        (trace,) = TraceRepository(session).list()
        assert trace.trace_id == trace_key(1)
        assert len(list(TraceRepository(session).iterate_spans())) == 1


def test_a_changed_attribute_is_committed(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        trace.status_message = "first"
        uow.commit()
        trace.status_message = "looked into"
        uow.commit()
    with pool.unit_of_work() as uow:
        assert uow.traces.get(trace.id).status_message == "looked into"


def test_a_change_of_a_row_read_between_two_commits_is_committed(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        uow.commit()
        trace.status_message = "looked into"
        uow.commit()
    with pool.unit_of_work() as uow:
        assert uow.traces.get(trace.id).status_message == "looked into"


def test_a_changed_attribute_is_rolled_back_without_commit(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        trace.status_message = "not committed"
    with pool.unit_of_work() as uow:
        assert uow.traces.get(trace.id).status_message is None


def test_a_column_that_the_list_left_out_can_be_set(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, attributes={"a": 1})])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.list_spans()
        span.attributes = {"b": 2}
        uow.commit()
        assert uow.traces.get_span(span.trace_id, span.span_id).attributes == {"b": 2}


def test_the_attributes_of_a_row_can_be_set_after_its_unit_of_work(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
    trace.status_message = "set later"
    assert inspect(trace).detached
    with pool.unit_of_work() as other:
        other.session.merge(trace)
        other.commit()
        assert other.traces.get(trace.id).status_message == "set later"


def test_a_copy_of_a_row_leaves_its_session_behind(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        for same in (copy.copy(trace), copy.deepcopy(trace), pickle.loads(pickle.dumps(trace))):
            same.status_message = "of the copy"
            assert trace.status_message is None
        uow.commit()
        assert uow.traces.get(trace.id).status_message is None


def test_changing_a_row_that_the_session_holds_as_another_object_is_an_error(
    pool: StoragePool,
) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        trace = uow.traces.get_by_trace_id(trace_key(1))
        own = uow.session.get_one(type(trace), trace.id)
        with pytest.raises(StorageError, match="holds the same row as another object"):
            trace.status_message = "lost"
        own.status_message = "kept"
        uow.commit()
        assert uow.traces.get(trace.id).status_message == "kept"


def test_a_span_that_a_session_adds_stores_its_events(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, events=[an_event()])])  # makes the partitions
    start = a_span(1, 1)["start_time"]
    events = [TraceEvent(name=name, timestamp=start) for name in ("first", "second", "third")]
    with pool.unit_of_work() as uow:
        key = uow.traces.get_by_trace_id(trace_key(1)).id
        uow.session.add(
            TraceSpan(
                trace_id=key,
                span_id="b" * 16,
                name="x",
                service_name="s",
                start_time=start,
                start_ns=7,
                events=events,
            )
        )
        events[2].trace_id, events[2].span_id = key, "b" * 16
        events[2].span_start_time, events[2].span_start_ns, events[2].position = start, 7, 2
        uow.session.add(events[2])  # which stores it by itself
        uow.commit()
        stored = uow.traces.get_events(key, "b" * 16)
    assert [event.name for event in stored] == ["first", "second", "third"]
    assert [event.position for event in stored] == [0, 1, 2]
    assert {event.span_start_ns for event in stored} == {7}


def test_a_span_that_a_session_merges_stores_its_events(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, events=[an_event()])])
    start = a_span(1, 1)["start_time"]
    with pool.unit_of_work() as uow:
        (read,) = uow.traces.get_spans(trace_key(1), with_events=True)
        new = TraceSpan(
            trace_id=read.trace_id,
            span_id="b" * 16,
            name="x",
            service_name="s",
            start_time=start,
            start_ns=7,
            events=[TraceEvent(name=name, timestamp=start) for name in ("first", "second")],
        )
        uow.session.merge(new)
        read.name = "changed"
        assert [event.name for event in uow.session.merge(read).events] == ["event"]
        uow.commit()
        stored = uow.traces.get_events(new.trace_id, new.span_id)
    assert [(event.name, event.position) for event in stored] == [("first", 0), ("second", 1)]


def test_related_rows_are_rows_of_their_model() -> None:
    for name, value in (("events", [{"name": "first"}]), ("events", [Trace()]), ("trace", {})):
        with pytest.raises(ValidationError, match=r"must be a Trace") as refused:
            TraceSpan(**{name: value})
        assert refused.value.field == name


def test_new_rows_in_a_relationship_of_a_stored_row_are_an_error(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, events=[an_event()])])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_key(1), with_events=True)
        with pytest.raises(ValidationError, match="add it to the session itself"):
            span.events.append(TraceEvent(name="lost", timestamp=span.start_time))
        with pytest.raises(ValidationError, match="add it to the session itself"):
            span.events = [TraceEvent(name="lost", timestamp=span.start_time)]
        assert [event.name for event in span.events] == ["event"]


def test_rows_that_a_session_would_leave_out_are_an_error(pool: StoragePool) -> None:
    start = a_span(1, 1)["start_time"]
    span = TraceSpan(span_id="b" * 16, name="x", service_name="s", start_time=start)
    trace = Trace(id=UUID(int=1), trace_id="t", service_name="s", start_time=start, spans=[span])
    with pool.unit_of_work() as uow:
        uow.session.add(trace)
        with pytest.raises(StorageError, match=r"Trace\.spans stores no rows"):
            uow.commit()


@each_list
def test_a_relationship_that_is_not_loaded_names_the_call_that_reads_it(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, [1])
    with pool.unit_of_work() as uow:
        (entity,) = listing.page(uow, limit=1)
        for relationship in inspect(type(entity)).relationships:
            with pytest.raises(StorageError, match=r"was not loaded: call uow\.\w+\.get\w*\("):
                getattr(entity, relationship.key)


def test_row_that_is_read_again_after_a_commit_can_be_changed_again(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        first = uow.traces.get_by_trace_id(trace_key(1))
        first.status_message = "first"
        uow.commit()
        again = uow.traces.get_by_trace_id(trace_key(1))
        again.status_message = "again"
        uow.commit()
        assert uow.traces.get(again.id).status_message == "again"
