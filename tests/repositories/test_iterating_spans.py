"""Iterating over spans returns each one once, a batch at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest

from observatory_storage import CopyWriter, SpanFilters, StorageError, StoragePool, ValidationError
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_span,
    keys,
    newest_spans,
    statements,
    trace_key,
)


def _of_a_trace() -> list[Row]:
    """Spans of one trace with ties in their starts, over two days, beside those of another."""
    source = random.Random(3)
    return [
        a_span(
            1 + number % 2,
            number // 2 + 1,
            START + source.choice([0, 1]) * DAY + source.randrange(9) * SECOND,
            start_ns=source.choice([0, 7]),
            end_ns=7,
            kind=source.choice(["client", "internal"]),
        )
        for number in range(60)
    ]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("filters", [{"trace_id": trace_key(1)}, {"kind": "client"}, {}], ids=str)
def test_iterating_returns_each_span_once_in_either_order(
    pool: StoragePool, filters: dict[str, Any], oldest_first: bool
) -> None:
    rows = [{"status": "ok", **row} for row in _of_a_trace()]
    CopyWriter(pool).write_spans(rows)
    asked = SpanFilters(**filters, limit=1)
    blank = {"model": None, "total_tokens": None, "total_cost_usd": None}
    expected = newest_spans([{**blank, **row} for row in rows], asked)
    assert expected
    with pool.unit_of_work() as uow:
        for size in (1, 7, 1000):
            walk = uow.traces.iterate_spans(asked, size, oldest_first=oldest_first)
            assert keys(walk) == expected[:: -1 if oldest_first else 1]


def test_iterating_over_a_trace_is_one_statement_whatever_its_size(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, n + 1, attributes={"n": n}) for n in range(300)])
    of_trace = SpanFilters(trace_id=trace_key(1))
    with pool.unit_of_work() as uow:
        with statements(pool.engine) as seen:
            spans = list(uow.traces.iterate_spans(of_trace, 10))
        assert (len(spans), len(seen)) == (300, 2)
        with pytest.raises(StorageError, match="attributes was not loaded"):
            _ = spans[0].attributes
        walk = uow.traces.iterate_spans(of_trace, 10, payload=True)
        assert next(walk).attributes == {"n": 299}
        assert uow.traces.get(trace_key(1)).span_count == 300  # other questions meanwhile
        assert sum(1 for _ in walk) == 299
        assert list(uow.traces.iterate_spans(SpanFilters(trace_id=trace_key(2)))) == []
        with pytest.raises(ValidationError, match="batch_size"):
            uow.traces.iterate_spans(of_trace, 0)
