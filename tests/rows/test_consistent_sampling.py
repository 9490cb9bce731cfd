"""Thresholds and weights of OpenTelemetry's consistent probability sampling."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.rows import prepare_many, prepare_span
from observatory_storage.rows.consistent_sampling import (
    ALL,
    HeadSampling,
    head_sampling,
    threshold_of,
    weight_of,
)
from observatory_storage.tables import SPANS
from tests.writers.helpers import a_span

_WEIGHT = SPANS.position["sample_weight"]
# The half of all traces: their random numbers are from 8 and 13 zeros on.
HALF = "8"


@pytest.mark.parametrize(
    ("share", "weights"),
    [(1.0, {None}), (0.5, {2}), (0.25, {4}), (0.1, {10}), (0.3, {3, 4}), (0.75, {None, 2})],
)
def test_weights_are_the_inverse_of_the_share(share: float, weights: set[int | None]) -> None:
    threshold = threshold_of(share)
    steps = 10_000
    kept = [
        weight_of(threshold, number)
        for number in range(0, ALL, ALL // steps)
        if number >= threshold
    ]
    # 0.1 is no fraction of a power of two: a few random numbers make up for the rest.
    assert weights <= set(kept) <= weights | {11}
    assert abs(len(kept) - share * steps) <= 1
    assert abs(sum(weight or 1 for weight in kept) - steps) <= max(w or 1 for w in weights) + 1


@given(kept=st.integers(1, 300))
def test_the_weights_of_all_random_numbers_add_up_to_their_number(kept: int) -> None:
    # Of all thresholds, those are checked whole that keep few numbers.
    threshold = ALL - kept
    weights = [weight_of(threshold, number) for number in range(threshold, ALL)]
    if ALL // kept < 2**31 - 1:
        assert sum(weight or 1 for weight in weights) == ALL
    else:
        assert set(weights) == {2**31 - 1}  # the column's greatest value


@pytest.mark.parametrize(
    ("trace_state", "expected"),
    [
        ("ot=th:8", HeadSampling(ALL // 2)),
        ("ot=th:c", HeadSampling(ALL // 4 * 3)),
        ("ot=th:0", HeadSampling(0)),
        ("ot=rv:00000000000001;th:8", HeadSampling(ALL // 2, 1)),
        ("vendor=x;th:8, ot=th:4", HeadSampling(ALL // 4)),
        ("ot=p:8", HeadSampling()),
        ("ot=th:xyz", HeadSampling()),
        ("ot=th:123456789012345", HeadSampling()),
        ("bot=th:8", HeadSampling()),
        ("vendor=th:8", HeadSampling()),
    ],
)
def test_trace_states_are_read(trace_state: str, expected: HeadSampling) -> None:
    row = prepare_span(a_span(otlp={"flags": 257, "trace_state": trace_state}))
    assert head_sampling(row.values[SPANS.position["otlp"]]) == expected


@pytest.mark.parametrize(
    ("columns", "weight"),
    [
        ({"trace_id": "f" * 32, "otlp": {"trace_state": f"ot=th:{HALF}"}}, 2),
        ({"trace_id": "f" * 32, "otlp": {"trace_state": "ot=th:0"}}, None),
        ({"trace_id": "f" * 32, "otlp": {"trace_state": "ot=th:c"}, "sample_weight": 7}, 7),
        ({"trace_id": "f" * 32, "otlp": {"flags": 1}}, None),
        ({"trace_id": "1" * 32}, None),
        # No sampler with this threshold can have kept the trace.
        ({"trace_id": "1" * 32, "otlp": {"trace_state": f"ot=th:{HALF}"}}, None),
        ({"trace_id": "1" * 32, "otlp": {"trace_state": "ot=th:8;rv:ffffffffffffff"}}, 2),
        ({"trace_id": "f" * 32, "otlp": {"trace_state": "ot=th:8;rv:00000000000001"}}, None),
        # A header of a caller must not multiply a count by billions.
        ({"trace_id": "f" * 32, "otlp": {"trace_state": f"ot=th:{'f' * 14}"}}, 9_999),
        ({"trace_id": "f" * 32, "otlp": {"trace_state": "ot=th:fff"}}, 4096),
    ],
)
def test_a_span_has_the_weight_that_its_trace_state_tells(
    columns: dict[str, Any], weight: int | None
) -> None:
    span = a_span(**columns)
    assert prepare_span(span).values[_WEIGHT] == weight
    prepared, error = prepare_many(SPANS, [span, a_span(2)])
    assert error is None
    assert [row.values[_WEIGHT] for row in prepared] == [weight, None]
