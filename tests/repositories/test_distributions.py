"""Quantiles of buckets, against the observations that were put into them."""

from __future__ import annotations

import bisect
import math
import random
from typing import Any

import pytest

from observatory_storage.repositories.metrics.amounts import Amounts
from observatory_storage.repositories.metrics.distributions import (
    cells_of,
    has_fallen,
    quantile_of,
)

BOUNDS = [0.0, 5.0, 10.0, 25.0, 50.0, 100.0]


def explicit(values: list[float], bounds: list[float]) -> dict[str, Any]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect.bisect_left(bounds, value)] += 1
    return {"bounds": bounds, "counts": counts}


def exponential(values: list[float], scale: int) -> dict[str, Any]:
    """OpenTelemetry's exponential histogram: bucket i holds (base**i, base**(i + 1)]."""
    sides: dict[str, Any] = {}
    for side, sign in (("positive", 1), ("negative", -1)):
        indexes = [
            math.ceil(math.log2(value * sign) * 2.0**scale) - 1
            for value in values
            if value * sign > 0
        ]
        low = min(indexes, default=0)
        counts = [0] * (max(indexes, default=low - 1) - low + 1)
        for index in indexes:
            counts[index - low] += 1
        sides[side] = {"offset": low, "counts": counts}
    return {"scale": scale, "zero_count": values.count(0.0), "zero_threshold": 0.0, **sides}


def test_values_are_interpolated_within_their_bucket() -> None:
    cells = cells_of({"bounds": [0, 10, 20], "counts": [0, 10, 10, 0]})
    assert quantile_of(cells, 0.25) == pytest.approx(5)
    assert quantile_of(cells, 0.5) == pytest.approx(10)
    assert quantile_of(cells, 0.95) == pytest.approx(19)
    assert quantile_of(cells, 1) == pytest.approx(20)
    assert quantile_of(cells, 0) == 0


def test_the_open_buckets_end_at_the_extremes_where_they_are_known() -> None:
    cells = cells_of({"bounds": [10, 20], "counts": [1, 0, 1]})
    assert quantile_of(cells, 0.99) == 20
    assert quantile_of(cells, 1, greatest=30) == 30
    assert quantile_of(cells, 0) == 0
    assert quantile_of(cells, 0, least=4) == 4
    negative = cells_of({"bounds": [-10, 20], "counts": [1, 0, 0]})
    assert quantile_of(negative, 0.5) == -10
    assert quantile_of(negative, 0.5, least=-20) == pytest.approx(-15)


def test_equal_values_are_their_own_quantiles() -> None:
    cells = cells_of({"bounds": [0, 10], "counts": [0, 3, 0]})
    assert {quantile_of(cells, q, least=7, greatest=7) for q in (0.1, 0.5, 0.99)} == {7}


@pytest.mark.parametrize(
    "buckets",
    [
        None,
        {},
        {"bounds": [], "counts": []},
        {"bounds": [], "counts": [4]},
        {"bounds": ["NaN"], "counts": [4, 4]},
        {"bounds": [1], "counts": [0, 0]},
    ],
)
def test_nothing_observed_has_no_quantile(buckets: dict[str, Any] | None) -> None:
    assert quantile_of(cells_of(buckets), 0.5) is None
    assert Amounts().quantile(0.5) is None


@pytest.mark.parametrize("scale", [-2, 0, 3, 8])
def test_exponential_buckets_are_as_near_as_their_scale(scale: int) -> None:
    rng = random.Random(scale)
    values = [rng.lognormvariate(3, 1) for _ in range(999)]
    values += [-value for value in values[:200]] + [0.0] * 100
    cells = cells_of(exponential(values, scale))
    base = 2.0**2.0**-scale
    values.sort()
    for q in (0.05, 0.5, 0.9, 0.99):
        true = values[math.ceil(q * len(values)) - 1]
        found = quantile_of(cells, q)
        assert found is not None
        if true == 0:
            assert found == 0
        else:
            assert 1 / base - 1e-6 <= found / true <= base + 1e-6


def test_extreme_exponents_stay_numbers() -> None:
    for offset in (2**30, -(2**30)):
        buckets = {"scale": 0, "positive": {"offset": offset, "counts": [1]}}
        found = quantile_of(cells_of(buckets), 0.5)
        assert found is not None
        assert math.isfinite(found)


def test_an_earlier_point_of_the_same_series_is_subtracted() -> None:
    before, later = [1.0, 7.0, 30.0], [2.0, 8.0, 60.0, 70.0]
    total = before + later
    difference = cells_of(explicit(total, BOUNDS), explicit(before, BOUNDS))
    assert difference == cells_of(explicit(later, BOUNDS))
    finer, coarser = exponential(before, 4), exponential(total, 2)
    assert cells_of(coarser, finer) == cells_of(exponential(later, 2))


def test_different_bounds_add_up() -> None:
    cells = cells_of({"bounds": [0, 10], "counts": [0, 10, 0]})
    for cell, count in cells_of({"bounds": [0, 4, 20], "counts": [0, 4, 16, 0]}).items():
        cells[cell] = cells.get(cell, 0) + count
    # Below 4: 4 of the first and 4 of the second; below 10: 10 and 4 + 16 * 6 / 16.
    assert quantile_of(cells, 8 / 30) == pytest.approx(4)
    assert quantile_of(cells, 20 / 30) == pytest.approx(10)
    assert quantile_of(cells, 25 / 30) == pytest.approx(15)


SMALL = {"bounds": [1.0, 2.0], "counts": [1, 2, 3]}
FINE = {"scale": 1, "zero_count": 1, "positive": {"offset": 0, "counts": [1, 2]}}


@pytest.mark.parametrize(
    ("changed", "fallen"),
    [
        ({"counts": [1, 2, 3]}, False),
        ({"counts": [2, 2, 4]}, False),
        ({"counts": [9, 1, 3]}, True),
        ({"bounds": [1.0, 3.0], "counts": [9, 9, 9]}, True),
    ],
)
def test_a_histogram_with_a_decreased_bucket_was_reset(
    changed: dict[str, Any], fallen: bool
) -> None:
    later = {**SMALL, **changed}
    assert has_fallen(later, SMALL) is fallen
    expected = cells_of(later) if fallen else cells_of(later, SMALL)
    assert cells_of(later, SMALL) == expected
    assert not has_fallen(later, None)
    assert not has_fallen(None, SMALL)
    assert has_fallen(later, FINE)


@pytest.mark.parametrize(
    ("changed", "fallen"),
    [
        ({}, False),
        ({"scale": 0, "positive": {"offset": 0, "counts": [3]}}, False),
        ({"scale": 0, "positive": {"offset": 0, "counts": [2]}}, True),
        ({"scale": 2, "positive": {"offset": 0, "counts": [9, 9, 9, 9]}}, True),
        ({"zero_count": 0}, True),
        ({"positive": {"offset": 1, "counts": [9]}}, True),
        # What is not above 1.5 counts as zero now: index 0, up to the root of 2, is among it.
        (
            {
                "zero_count": 2,
                "zero_threshold": 1.5,
                "positive": {"offset": 1, "counts": [2]},
            },
            False,
        ),
    ],
)
def test_an_exponential_histogram_may_become_coarser_but_not_decrease(
    changed: dict[str, Any], fallen: bool
) -> None:
    later = {**FINE, **changed}
    assert has_fallen(later, FINE) is fallen
    assert sum(cells_of(later, FINE).values()) == (sum(cells_of(later).values()) if fallen else 0)
    if "zero_threshold" in changed:
        assert has_fallen(FINE, later)


def test_buckets_beyond_all_numbers_are_all_counted() -> None:
    buckets = {"scale": 0, "positive": {"offset": 2**30, "counts": [1, 1, 1]}}
    assert sum(cells_of(buckets).values()) == 3


def test_zeros_lie_on_the_side_of_the_other_observations() -> None:
    zero = {"scale": 0, "zero_count": 10, "zero_threshold": 0.5}
    some = {"offset": 0, "counts": [1]}
    least = {"both": -0.5, "positive": 0, "negative": -0.5, "none": -0.5}
    for side, low in least.items():
        sides = ("positive", "negative") if side == "both" else (side,) if side != "none" else ()
        cells = cells_of({**zero, **dict.fromkeys(sides, some)})
        below = 0.0 if side in ("positive", "none") else 1.0
        total = sum(cells.values())
        assert quantile_of(cells, below / total) == pytest.approx(-1 if below else low)
        middle = quantile_of(cells, (below + 5) / total)
        assert middle == pytest.approx({"positive": 0.25, "negative": -0.25}.get(side, 0))


def test_the_side_of_zeros_is_that_of_all_histograms_together() -> None:
    cells = cells_of({"scale": 0, "zero_count": 10, "zero_threshold": 0.5})
    assert quantile_of(cells, 0.9) == pytest.approx(0.4)
    cells |= cells_of({"bounds": [-2, -1], "counts": [5, 5, 0]})
    assert quantile_of(cells, 0.75) == pytest.approx(-0.25)


@pytest.mark.parametrize("sign", [1, -1])
def test_wide_and_tiny_buckets_are_interpolated(sign: int) -> None:
    side = "positive" if sign > 0 else "negative"
    for scale, offset in ((-10, 0), (-10, -1), (-11, -1), (0, 1023), (0, -1074), (20, 0)):
        buckets = {"scale": scale, "zero_count": 0, side: {"offset": offset, "counts": [4]}}
        (cell,) = cells_of(buckets)
        found = [quantile_of(cells_of(buckets), q) for q in (0, 0.25, 0.5, 0.75, 1)]
        values = [value for value in found if value is not None]
        assert values == sorted(values)
        assert (values[0], values[-1]) == (cell.low, cell.high)
        assert len(values) == 5
    wide = cells_of({"bounds": [-1.5e308, 1.5e308], "counts": [0, 4, 0]})
    assert quantile_of(wide, 0.75) == pytest.approx(7.5e307)
