"""Usage counts once over the parts of a write, over writes, over traces and after deletions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest

from observatory_storage import SettledUsage, StoragePool, TraceWriter, ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.storing import stored_usage
from observatory_storage.storing.usage_once import MOST_SPANS_OF_A_CALL
from observatory_storage.writers import CopyWriter
from tests.writers.helpers import Row, a_span, contents, fetch, span_id, trace_id
from tests.writers.trace_model import check_traces

Method = Literal["insert", "copy"]


def told(prompt: int, completion: int, **columns: Any) -> Row:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **columns}


def inside(number: int) -> Row:
    return {"parent_span_id": span_id(number)}


def tokens(pool: StoragePool) -> dict[tuple[int, int], int]:
    """What counts, by the numbers of trace and span."""
    check_traces(pool)
    return {
        (row["trace_id"].int, int(row["span_id"], 16)): row["total_tokens"]
        for row in fetch(pool, TraceSpan)
        if row["total_tokens"] is not None
    }


def marked(pool: StoragePool) -> list[int]:
    return sorted(row["id"].int for row in fetch(pool, Trace) if row["unsettled_since"])


@pytest.mark.parametrize("method", ["insert", "copy"])
def test_an_agent_that_is_written_after_its_calls_is_not_counted(
    pool: StoragePool, method: Method
) -> None:
    writer = CopyWriter(pool, method=method)
    writer.write_spans([a_span(1, 2, **inside(1), **told(100, 10))])
    writer.write_spans([a_span(1, 3, **inside(1), **told(200, 20))])
    agent = a_span(1, 1, **told(300, 30, total_cost_usd=Decimal("0.10")))
    writer.write_spans([agent])
    assert tokens(pool) == {(1, 2): 110, (1, 3): 220}
    stored = next(row for row in fetch(pool, TraceSpan) if row["span_id"] == span_id(1))
    assert stored["reported_usage"] == {
        "prompt_tokens": 300,
        "completion_tokens": 30,
        "total_tokens": 330,
        "total_cost_usd": "0.10",
    }
    before = contents(pool)
    writer.write_spans([agent, a_span(1, 2, **inside(1), **told(100, 10))])
    assert contents(pool) == before
    # Corrected versions are decided anew.
    writer.write_spans([a_span(1, 2, **inside(1)), a_span(1, 3, **inside(1))])
    assert tokens(pool) == {(1, 1): 330}
    writer.write_spans([a_span(1, 3, **inside(1), **told(5, 5))])
    assert tokens(pool) == {(1, 3): 10}


def test_a_span_without_usage_can_show_that_an_agent_is_above_calls(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(1, 1, **told(300, 30)), a_span(1, 3, **inside(2), **told(100, 10))])
    assert tokens(pool) == {(1, 1): 330, (1, 3): 110}
    writer.write_spans([a_span(1, 2, **inside(1))])
    assert tokens(pool) == {(1, 3): 110}


def test_a_stream_of_many_spans_counts_once_over_its_parts(pool: StoragePool) -> None:
    agents = [a_span(trace, 1, **told(7, 0)) for trace in range(1, 151)]
    calls = [a_span(trace, 2, **inside(1), **told(3, 1)) for trace in range(1, 151)]
    sdk = a_span(200, 3, **told(3, 1, response_id="shared", model="m"))
    calls[0] |= {"response_id": "shared"}
    assert CopyWriter(pool).write_spans([*agents, *calls, sdk]) == 301
    expected = {(trace, 2): 4 for trace in range(2, 151)} | {(200, 3): 4}
    assert tokens(pool) == expected


def test_a_buffered_writer_counts_once(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        writer.write_span(TraceSpan(**a_span(1, 1, **told(300, 30))))
        writer.write_span(TraceSpan(**a_span(1, 2, **inside(1), **told(100, 10))))
    assert tokens(pool) == {(1, 2): 110}


def test_a_unit_of_work_counts_once_when_it_is_committed(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(1, 1, **told(300, 30))])
        CopyWriter(uow).write_spans([a_span(1, 2, **inside(1), **told(100, 10))])
        uow.commit()
    assert tokens(pool) == {(1, 2): 110}


def test_spans_that_were_read_can_be_written_elsewhere(pool: StoragePool) -> None:
    spans = [a_span(1, 1, **told(100, 10, total_cost_usd=1)), a_span(1, 2, **inside(1))]
    spans[1] |= told(100, 10, model="m")
    CopyWriter(pool).write_spans(spans)
    before = contents(pool)
    with pool.unit_of_work() as uow:
        read = list(uow.traces.get_spans(trace_id(1)))
    assert [span.total_cost_usd for span in read] == [None, 1]
    CopyWriter(pool).write_spans(read)
    assert contents(pool) == before
    with pool.unit_of_work() as uow:
        uow.traces.delete(trace_id(1))
        uow.commit()
    CopyWriter(pool).write_spans([read[1]])
    assert (tokens(pool), fetch(pool, TraceSpan)[0]["total_cost_usd"]) == ({(1, 2): 110}, None)
    with pytest.raises(ValidationError, match="reported_usage"):
        CopyWriter(pool).write_spans([{**spans[0], "reported_usage": {"tokens": 5}}])


def test_a_call_of_two_traces_counts_once_after_settling(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    ours = a_span(1, 2, **inside(1), **told(100, 10, response_id="r", model="m", user_id="u"))
    writer.write_spans([a_span(1, 1, **told(100, 10, response_id="r")), ours])
    assert pool.settle_usage() == SettledUsage(traces=1, changed_traces=0)
    theirs = a_span(2, 7, **told(90, 10, response_id="r", model="m", total_cost_usd=Decimal("0.2")))
    writer.write_spans([theirs])
    assert (tokens(pool), marked(pool)) == ({(1, 2): 110, (2, 7): 100}, [2])
    assert pool.settle_usage() == SettledUsage(traces=1, changed_traces=2)
    assert (tokens(pool), marked(pool)) == ({(1, 2): 110}, [])
    costs = {row["id"].int: row["total_cost_usd"] for row in fetch(pool, Trace)}
    assert costs == {1: Decimal("0.2"), 2: None}
    assert pool.settle_usage() == SettledUsage()
    with pool.unit_of_work() as uow:
        uow.traces.delete(trace_id(1))
        uow.commit()
    assert marked(pool) == [2]
    pool.settle_usage()
    assert tokens(pool) == {(2, 7): 100}


def test_a_call_of_a_deleted_user_counts_in_the_trace_that_stays(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [
            a_span(1, 1, **told(100, 10, response_id="r", model="m", user_id="u")),
            a_span(2, 2, **told(100, 10, response_id="r")),
            a_span(3, 3, **told(5, 5)),
        ]
    )
    pool.settle_usage()
    assert tokens(pool) == {(1, 1): 110, (3, 3): 10}
    with pool.unit_of_work() as uow:
        uow.traces.delete_user("u")
        uow.commit()
    assert marked(pool) == [2]
    pool.settle_usage()
    assert tokens(pool) == {(2, 2): 110, (3, 3): 10}


def test_a_call_whose_best_span_loses_its_usage_counts_on_the_other(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    best = a_span(1, 1, response_id="r", model="m")
    writer.write_spans([{**best, **told(100, 10)}, a_span(2, 2, **told(100, 10, response_id="r"))])
    pool.settle_usage()
    assert tokens(pool) == {(1, 1): 110}
    writer.write_spans([best])
    pool.settle_usage()
    assert tokens(pool) == {(2, 2): 110}


def test_an_id_that_all_responses_have_does_not_make_them_one_call(pool: StoragePool) -> None:
    spans = [
        a_span(number, number, **told(1, 1, response_id="mock"))
        for number in range(1, MOST_SPANS_OF_A_CALL + 2)
    ]
    writer = CopyWriter(pool)
    for span in spans[:-1]:
        writer.write_spans([span])
    pool.settle_usage()
    assert len(tokens(pool)) == 1
    writer.write_spans([spans[-1]])
    assert pool.settle_usage().traces == 1
    assert len(tokens(pool)) == len(spans)
    assert fetch(pool, TraceSpan)[0]["reported_usage"] is None


def test_spans_of_one_id_on_different_days_are_different_calls(pool: StoragePool) -> None:
    now, later = a_span(1, 1), a_span(2, 200_000)
    for span in (now, later):
        CopyWriter(pool).write_spans([span | told(1, 1, response_id="r")])
        pool.settle_usage()
    assert len(tokens(pool)) == 2


def test_large_traces_are_settled_later(pool: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_usage, "MOST_SPANS_AT_ONCE", 3)
    writer = CopyWriter(pool)
    writer.write_spans([a_span(1, number, **inside(1), **told(1, 1)) for number in (2, 3, 4)])
    writer.write_spans([a_span(1, 1, **told(3, 3)), a_span(2, 1, **told(1, 1))])
    assert (len(tokens(pool)), marked(pool)) == (5, [1])
    assert pool.settle_usage() == SettledUsage(traces=1, changed_traces=1)
    assert tokens(pool) == {(1, 2): 2, (1, 3): 2, (1, 4): 2, (2, 1): 2}


def test_a_settlement_can_be_bounded(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans(
        [a_span(number, number, **told(1, 1, response_id=f"r{number}")) for number in range(1, 6)]
    )
    assert pool.settle_usage(max_traces=2).traces == 2
    assert len(marked(pool)) == 3
    assert pool.settle_usage().traces == 3
    for wrong in (0, -1, True, "5"):
        with pytest.raises(ValidationError, match="max_traces"):
            pool.settle_usage(max_traces=wrong)  # type: ignore[arg-type]  # is refused
