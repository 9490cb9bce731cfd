"""Entities are what a session would have loaded, but that no session holds them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from observatory_storage import CopyWriter, StorageError, StoragePool, TraceRepository
from observatory_storage.models import Base
from tests.repositories.lists import LISTS, Listing
from tests.repositories.samples import a_span, an_event, statements, trace_key

each_list = pytest.mark.parametrize("listing", LISTS, ids=lambda listing: listing.name)


def columns_of(entity: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(entity).items() if name != "_sa_instance_state"}


@each_list
def test_an_entity_is_as_a_session_loads_it(pool: StoragePool, listing: Listing) -> None:
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


def test_what_the_session_holds_stays_as_it_is(pool: StoragePool) -> None:
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
