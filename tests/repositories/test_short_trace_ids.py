"""A trace id of 64 bits is that of 128 bits which zeros pad on the left."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from observatory_storage import (
    CopyWriter,
    LogWriter,
    NotFound,
    StoragePool,
    TraceWriter,
    export_logs,
    export_traces,
    ids,
)
from observatory_storage.repositories.traces.id_prefixes import traces_with_prefix
from tests.repositories.samples import a_log, a_span

BARE = "463ac35c9f6413ad"
PADDED = BARE.rjust(32, "0")
FORMS: list[Any] = [BARE, BARE.upper(), PADDED, PADDED.upper(), UUID(PADDED), str(UUID(PADDED))]


@pytest.mark.parametrize("stored", [BARE, BARE.upper(), PADDED])
def test_it_is_found_padded_and_bare(pool: StoragePool, stored: str) -> None:
    with TraceWriter(pool) as writer, LogWriter(pool) as logs:
        writer.write_span(a_span(1, 1, trace_id=stored))
        logs.write_log(a_log(1, trace_id=stored))
    with pool.unit_of_work() as uow:
        for form in FORMS:
            assert uow.traces.get_by_trace_id(form).trace_id == stored.lower()
            assert len(uow.traces.get_spans(form)) == 1
            assert len(uow.traces.list_spans(trace_id=form)) == 1
            assert len(uow.logs.get_by_trace(form)) == len(uow.logs.list(trace_id=form)) == 1
        for beginning in (BARE[:6], PADDED[:25], BARE):
            assert len(traces_with_prefix(uow.session, beginning, 5)) == 1
        uow.traces.delete(BARE)
        assert not uow.logs.list(trace_id=PADDED)


def test_spans_with_the_bare_and_the_padded_id_are_of_one_trace(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(a_span(1, n, trace_id=id_) for n, id_ in enumerate(FORMS, 1))
    with pool.unit_of_work() as uow:
        (trace,) = uow.traces.list()
        assert trace.span_count == len(FORMS)


def test_those_that_an_earlier_version_stored_are_found(pool: StoragePool) -> None:
    former = ids.former_trace_uuid(UUID(PADDED))
    assert former == UUID("c32e336b-295a-56f9-8668-1fa03512193c")
    with TraceWriter(pool) as writer, LogWriter(pool) as logs:
        writer.write_span(a_span(1, 1, trace_id=former))
        logs.write_log(a_log(1, trace_id=former))
    with pool.unit_of_work() as uow:
        for form in FORMS:
            trace = uow.traces.get_by_trace_id(form)
            assert trace.id == uow.traces.get(form).id == former
            assert len(uow.traces.get_spans(form)) == len(uow.traces.get_spans(trace)) == 1
            assert len(uow.traces.list_spans(trace_id=form)) == 1
            assert len(uow.logs.get_by_trace(form)) == len(uow.logs.list(trace_id=form)) == 1
    exported = list(export_traces(pool, [BARE]))
    assert len(exported) == len(list(export_logs(pool, [PADDED]))) == 1
    with pool.unit_of_work() as uow:
        uow.traces.delete(BARE)
        with pytest.raises(NotFound, match=BARE):
            uow.traces.delete(BARE)
