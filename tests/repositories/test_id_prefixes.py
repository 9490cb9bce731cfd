"""The search for ids by their beginning."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.ids import trace_uuid
from observatory_storage.repositories.traces.id_prefixes import (
    sessions_with_prefix,
    traces_with_prefix,
)
from tests import citus
from tests.repositories.plans import plans_of
from tests.repositories.samples import SECOND, START, a_span, statements

IDS = ["ab" * 16, "ab" + "cd" * 15, "ff" * 16, "job-7", "job-70", "Job-7", "abba", "é%_"]


@pytest.fixture
def stored(pool: StoragePool) -> StoragePool:
    """A pool on a database with a trace for each of `IDS`."""
    CopyWriter(pool).write_spans([a_span(1, 1, trace_id=id_) for id_ in IDS])
    return pool


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("ab", ["ab" * 16, "abba", "ab" + "cd" * 15]),
        ("AB", ["ab" * 16, "abba", "ab" + "cd" * 15]),
        ("abab", ["ab" * 16]),
        ("abcdcdcd-cdc", ["ab" + "cd" * 15]),
        ("abba", ["abba"]),
        ("f", ["ff" * 16]),
        ("job-7", ["job-7", "job-70"]),
        ("Job", ["Job-7"]),
        ("é", ["é%_"]),
        ("%", []),
        ("_", []),
        ("ab" * 17, []),
        (str(trace_uuid("job-70"))[:12], ["job-70"]),
    ],
)
def test_traces_are_found_by_the_beginning_of_either_id(
    stored: StoragePool, prefix: str, found: list[str]
) -> None:
    with stored.unit_of_work() as uow:
        traces = traces_with_prefix(uow.session, prefix, 10)
    assert sorted(trace.trace_id for trace in traces) == sorted(found)


@citus.not_there("shards have plans of their own")
def test_no_more_traces_are_read_than_wanted(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [a_span(number, 1, START + number * SECOND) for number in range(1, 3000)]
    )
    with pool.unit_of_work() as uow:
        assert len(traces_with_prefix(uow.session, "0000", 3)) == 3
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE traces")
    plans = plans_of(pool, lambda uow: traces_with_prefix(uow.session, "0000", 3))
    assert len(plans) == 3
    for plan in plans:
        assert not plan.read_whole, plan.text
        assert plan.rows <= 10, plan.text
    assert set.union(*(plan.indexes for plan in plans)) == {"ix_traces_trace_id", "pk_traces"}


def test_sessions_are_found_by_the_beginning_of_their_id(pool: StoragePool) -> None:
    names = ["talk", "talk-1", "talk-2", "tall", "Talk"]
    rows = [
        a_span(1, 100 * place + number, START + number * timedelta(days=1), session_id=name)
        for place, name in enumerate(names, 1)
        for number in range(3)
    ]
    CopyWriter(pool).write_spans([*rows, a_span(1, 9)])
    with pool.unit_of_work() as uow:
        assert sessions_with_prefix(uow.session, "talk", 9) == ["talk", "talk-1", "talk-2"]
        with statements(pool.engine) as sent:
            assert sessions_with_prefix(uow.session, "t", 2) == ["talk", "talk-1"]
        assert len(sent) == 2
        assert sessions_with_prefix(uow.session, "x", 2) == []


def test_a_trace_is_found_once_if_both_of_its_ids_match(stored: StoragePool) -> None:
    with stored.unit_of_work() as uow:
        (trace,) = traces_with_prefix(uow.session, "ff", 5)
    assert trace.id == UUID("ff" * 16)
