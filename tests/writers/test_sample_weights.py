"""The weights that sampled spans and their traces are stored with."""

from __future__ import annotations

import pytest

from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    TraceWriter,
)
from tests.writers.helpers import (
    a_span,
    fetch,
    span_id,
    trace_id,
)
from tests.writers.test_tail_sampling import HALF, KEPT, child, patient, stored
from tests.writers.trace_model import check_traces


def test_weights_of_samplers_before_are_combined(pool: StoragePool) -> None:
    by_threshold = {"otlp": {"trace_state": "ot=th:c"}}  # a quarter of all traces
    with TraceWriter(pool, patient(HALF)) as writer:
        writer.write_span(a_span(KEPT, 1, **by_threshold))
        writer.write_span(a_span(KEPT - 2, 2, status="error", **by_threshold))
        writer.write_span(a_span(KEPT - 1, 3, sample_weight=3))
        writer.write_span(a_span(2, 4, status="error", sample_weight=3))
    # The same traces pass both thresholds; other samplers are independent.
    assert stored(pool) == [(span_id(1), 4), (span_id(2), 4), (span_id(3), 6), (span_id(4), 3)]


def test_a_span_sent_again_keeps_the_lesser_weight(pool: StoragePool) -> None:
    with TraceWriter(pool, patient(HALF)) as sampling, TraceWriter(pool) as writer:
        sampling.write_spans([a_span(KEPT, 1), a_span(KEPT - 1, 2)])
        sampling.flush()
        writer.write_span(a_span(KEPT, 1, status="error"))  # another process keeps it for certain
        writer.flush()
        sampling.write_spans([a_span(KEPT, 1, name="again"), a_span(KEPT - 1, 2, name="again")])
        sampling.flush()
    assert stored(pool) == [(span_id(1), None), (span_id(2), 2)]
    assert {row["name"] for row in fetch(pool, TraceSpan)} == {"again"}
    weights = {row["id"].int: row["sample_weight"] for row in fetch(pool, Trace)}
    assert weights == {KEPT: None, KEPT - 1: 2}


@pytest.mark.parametrize("weights", [(None, 10), (10, None), (4, 10), (10, 4), (None, None)])
def test_the_lesser_weight_stays_wherever_a_batch_ends(
    pool: StoragePool, weights: tuple[int | None, int | None]
) -> None:
    versions = [a_span(1, 1, sample_weight=weight) for weight in weights]
    with TraceWriter(pool) as writer:
        for version in versions:
            writer.write_span(version)
            writer.flush()
        writer.write_spans([{**version, "trace_id": trace_id(2)} for version in versions])
    expected = None if None in weights else 4
    assert stored(pool) == [(span_id(1), expected)] * 2
    assert check_traces(pool) == 2


def test_a_trace_stands_for_as_many_as_its_surest_span(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        for weights in ([4, 4], [2], [4], [None], [4]):
            number = len(stored(pool))
            writer.write_spans(
                child(1, 2 + number + more, sample_weight=weight)
                for more, weight in enumerate(weights)
            )
            writer.flush()
            known = [weight or 1 for _, weight in stored(pool)]
            (trace,) = fetch(pool, Trace)
            assert (trace["sample_weight"] or 1) == min(known)


@pytest.mark.parametrize("weight", [0, -1, 2**31, 1.5])
def test_a_weight_is_a_whole_number_from_one_on(pool: StoragePool, weight: float) -> None:
    with TraceWriter(pool) as writer, pytest.raises(ValidationError, match="sample_weight"):
        writer.write_span(a_span(sample_weight=weight))
