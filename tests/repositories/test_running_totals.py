"""What was added over time, against the additions that made the totals."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.repositories import TimeSeriesQuery
from tests.repositories.samples import SECOND, START, Row

RANGE = 600
BOUNDS = [5.0, 10.0, 20.0]
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
NUMBERS = itertools.count()


@dataclass
class Report:
    """One export: what was observed since the one before; None where nothing was recorded."""

    at: int
    observed: list[int] | None
    is_silent_restart: bool = False


@dataclass
class Process:
    """Something that reports running totals from its start on."""

    host: str | None
    start: int | None
    reports: list[Report] = field(default_factory=list)

    @property
    def columns(self) -> Row:
        start = None if self.start is None else START + self.start * SECOND
        return {
            "start_timestamp": start,
            "attributes": {} if self.host is None else {"host": self.host},
        }


@st.composite
def processes(draw: st.DrawFn) -> list[Process]:
    starts = st.one_of(st.none(), st.integers(-1500, RANGE))
    hosts = st.sampled_from(["a", "b", None])
    reports = st.lists(
        st.tuples(
            st.integers(1, 300),
            st.one_of(st.none(), st.lists(st.integers(0, 30), max_size=3)),
            st.booleans(),
        ),
        max_size=8,
    )
    found = []
    for host, start in draw(st.lists(st.tuples(hosts, starts), max_size=4, unique=True)):
        process = Process(host, start)
        at = -600 if start is None else start
        for gap, observed, restarts in draw(reports):
            at += gap - 1 if not process.reports else gap  # the first may come at the start itself
            process.reports.append(Report(at, observed, restarts))
        found.append(process)
    begun = {(process.host, process.start) for process in found}
    # A series continues a point without a start that lies at its own start: they are one series.
    assume(not any((p.host, r.at) in begun for p in found if p.start is None for r in p.reports))
    return found


def additions(process: Process) -> list[tuple[int, list[int]]]:
    """What the process added within the range, as far as its totals can say."""
    known = process.start is not None and process.start >= 0
    found = []
    for report in process.reports:
        if report.observed is not None:
            # A point whose start is its own time only starts the count.
            if known and 0 <= report.at < RANGE and report.at != process.start:
                found.append((report.at, report.observed))
            known = True
    return found


def totals(process: Process) -> list[tuple[Report, list[int]]]:
    """Everything observed up to each report, from the start or the last silent restart on."""
    total: list[int] = []
    found = []
    for report in process.reports:
        # A restart that nobody declares shows by a total that falls.
        observed = report.observed or []
        falls = sum(observed) < sum(total) and len(observed) < len(total)
        if report.is_silent_restart and report.observed is not None and falls:
            total = []
        total = total + observed
        found.append((report, total))
    return found


def a_number(observed: list[int]) -> Row:
    return {"value": float(sum(observed))}


def a_histogram(observed: list[int]) -> Row:
    edges = [-1.0, *BOUNDS, 1e9]
    counts = [sum(low < v <= high for v in observed) for low, high in itertools.pairwise(edges)]
    return {
        "count": len(observed),
        "sum": float(sum(observed)),
        "buckets": {"bounds": BOUNDS, "counts": counts},
    }


def stored(
    pool: StoragePool, metric_type: str, temporality: str, given: list[Process], make: Any
) -> UUID:
    name = f"metric {next(NUMBERS)}"
    of: Row = {"name": name, "metric_type": metric_type, "temporality": temporality}
    CopyWriter(pool).write_metrics([{**of, "service_name": "service"}])
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name(name)
    rows = []
    for process in given:
        for report, total in totals(process):
            if temporality == "cumulative":
                content = {} if report.observed is None else make(total)
            else:
                content = {} if report.observed is None else make(report.observed)
            at = {"metric_id": metric.id, "timestamp": START + report.at * SECOND}
            rows.append({**at, **process.columns, **content})
    CopyWriter(pool).write_data_points(rows)
    return metric.id


def asked(
    pool: StoragePool, metric_id: UUID, aggregation: str, width: float, group_by: tuple[str, ...]
) -> dict[tuple[Any, ...], float]:
    query = TimeSeriesQuery(
        metric_id, START, START + RANGE * SECOND, aggregation, width, group_by=group_by
    )
    with pool.unit_of_work() as uow:
        points = uow.metrics.query_time_series(query)
    found = {(p.timestamp, *p.group.values()): p.value for p in points if p.value is not None}
    assert len(found) == len(points)
    return found


def by_bucket(
    given: list[tuple[Process, list[tuple[int, list[int]]]]], width: float, *, grouped: bool
) -> dict[tuple[Any, ...], list[list[int]]]:
    found: dict[tuple[Any, ...], list[list[int]]] = {}
    span = timedelta(seconds=width)
    for process, added in given:
        for at, observed in added:
            moment = START + at * SECOND
            bucket = moment - (moment - MONDAY) % span
            key = (bucket, process.host) if grouped else (bucket,)
            found.setdefault(key, []).append(observed)
    return found


def seconds_of(bucket: datetime, width: float) -> float:
    low, high = (bucket - START) / SECOND, (bucket - START) / SECOND + width
    return min(high, RANGE) - max(low, 0)


def percentile(values: list[int], q: float) -> float | None:
    """Interpolated within the bucket that the share falls into; as far as the last bound."""
    edges = [0.0, *BOUNDS]
    below = [sum(v <= edge for v in values) for edge in BOUNDS]
    below = [0, *below]
    for at, (low, high) in enumerate(itertools.pairwise(edges)):
        if below[at + 1] >= q * len(values) and below[at + 1] > below[at]:
            share = (q * len(values) - below[at]) / (below[at + 1] - below[at])
            return low + (high - low) * max(share, 0.0)
    return BOUNDS[-1] if values else None


WIDTHS = st.sampled_from([7, 60, 90.5, 0.25, 600, 604_800])


@settings(max_examples=40)
@given(given=processes(), width=WIDTHS, grouped=st.booleans())
def test_a_counter_adds_up(
    shared_pool: StoragePool, given: list[Process], width: float, grouped: bool
) -> None:
    group_by = ("host",) if grouped else ()
    metric_id = stored(shared_pool, "counter", "cumulative", given, a_number)
    expected = by_bucket([(p, additions(p)) for p in given], width, grouped=grouped)
    sums = {key: sum(map(sum, added)) for key, added in expected.items()}
    for aggregation in ("increase", "sum"):
        assert asked(shared_pool, metric_id, aggregation, width, group_by) == sums
    assert asked(shared_pool, metric_id, "rate", width, group_by) == {
        key: pytest.approx(added / seconds_of(key[0], width)) for key, added in sums.items()
    }


@settings(max_examples=40)
@given(given=processes(), width=WIDTHS, grouped=st.booleans())
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_a_histogram_adds_up(
    shared_pool: StoragePool, temporality: str, given: list[Process], width: float, grouped: bool
) -> None:
    group_by = ("host",) if grouped else ()
    metric_id = stored(shared_pool, "histogram", temporality, given, a_histogram)
    if temporality == "cumulative":
        added = [(p, additions(p)) for p in given]
    else:
        every = [(p, [(r.at, r.observed) for r in p.reports]) for p in given]
        added = [
            (p, [(at, o) for at, o in reports if o is not None and 0 <= at < RANGE])
            for p, reports in every
        ]
    expected = by_bucket(added, width, grouped=grouped)
    observed = {key: [v for one in lists for v in one] for key, lists in expected.items()}

    def ask(aggregation: str) -> dict[tuple[Any, ...], float]:
        return asked(shared_pool, metric_id, aggregation, width, group_by)

    assert ask("count") == {key: len(values) for key, values in observed.items()}
    assert ask("sum") == {key: sum(values) for key, values in observed.items()}
    some = {key: values for key, values in observed.items() if values}
    assert ask("avg") == {k: pytest.approx(sum(v) / len(v)) for k, v in some.items()}
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert ask(name) == {k: pytest.approx(percentile(v, q)) for k, v in some.items()}


@settings(max_examples=40)
@given(given=processes(), width=WIDTHS, grouped=st.booleans())
def test_a_gauge_aggregates_the_measured_values(
    shared_pool: StoragePool, given: list[Process], width: float, grouped: bool
) -> None:
    group_by = ("host",) if grouped else ()
    metric_id = stored(shared_pool, "gauge", "unspecified", given, a_number)
    measured = [
        (p, [(r.at, r.observed) for r in p.reports if r.observed is not None and 0 <= r.at < RANGE])
        for p in given
    ]
    values = {
        key: [sum(one) for one in lists]
        for key, lists in by_bucket(measured, width, grouped=grouped).items()
    }
    for aggregation, compute in (("min", min), ("max", max), ("sum", sum), ("count", len)):
        expected = {key: compute(found) for key, found in values.items()}
        assert asked(shared_pool, metric_id, aggregation, width, group_by) == expected


@pytest.mark.parametrize("apart", [0, 1])
def test_processes_that_report_side_by_side_add_up(shared_pool: StoragePool, apart: int) -> None:
    one = Process("a", -100, [Report(at, [10]) for at in (-50, 10, 70, 130)])
    other = Process("a", -90, [Report(at + apart, [1]) for at in (-50, 10, 70, 130)])
    metric_id = stored(shared_pool, "counter", "cumulative", [one, other], a_number)
    found = asked(shared_pool, metric_id, "increase", 60, ())
    assert list(found.values()) == [11.0, 11.0, 11.0]


def test_a_process_may_begin_when_another_one_ends(shared_pool: StoragePool) -> None:
    """Both have a point of that time, in whichever order their ids put them."""
    for host in "abcdef":
        old = Process(host, -100, [Report(-50, [70]), Report(30, [5])])
        new = Process(host, 30, [Report(30, []), Report(90, [2])])
        metric_id = stored(shared_pool, "counter", "cumulative", [old, new], a_number)
        assert list(asked(shared_pool, metric_id, "increase", 60, ()).values()) == [5.0, 2.0]


@pytest.mark.parametrize(("hours", "known"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("others", [0, 150])
def test_the_point_before_the_range_is_searched_an_hour_back(
    shared_pool: StoragePool, hours: float, known: bool, others: int
) -> None:
    before = round(-3600 * hours)
    given = [Process("a", None, [Report(before, [3]), Report(30, [4])])]
    # Others that wait too, and enough points in between for several pages.
    given += [Process(f"b{n}", -86_400, [Report(40, [1])]) for n in range(others)]
    given += [Process("c", None, [Report(at, [0]) for at in range(-2500, 0)])]
    metric_id = stored(shared_pool, "counter", "cumulative", given, a_number)
    found = asked(shared_pool, metric_id, "increase", 60, ("host",))
    assert list(found.values()) == ([4.0] if known else [])


@pytest.mark.parametrize("scale", [0, 2])
def test_an_exponential_histogram_may_become_coarser_or_be_reset(
    shared_pool: StoragePool, scale: int
) -> None:
    def an_exponential(scale: int, values: list[int]) -> Row:
        indexes = [math.ceil(math.log2(value) * 2**scale) - 1 for value in values]
        counts = [indexes.count(at) for at in range(max(indexes) + 1)]
        positive = {"offset": 0, "counts": counts}
        buckets = {"scale": scale, "zero_count": 0, "zero_threshold": 0.0, "positive": positive}
        return {"count": len(values), "sum": float(sum(values)), "buckets": buckets}

    metric_id = stored(shared_pool, "exponential_histogram", "cumulative", [], a_number)
    totals = [
        (-5, scale + 2, [3]),
        (10, scale + 2, [3, 3, 3, 6]),
        (70, scale, [3, 3, 3, 6, 12, 12]),
        (130, scale, [50, 50]),  # fewer: it began anew
    ]
    CopyWriter(shared_pool).write_data_points(
        {"metric_id": metric_id, "timestamp": START + at * SECOND, **an_exponential(its, values)}
        for at, its, values in totals
    )
    assert list(asked(shared_pool, metric_id, "count", 60, ()).values()) == [3, 2, 2]
    assert list(asked(shared_pool, metric_id, "sum", 60, ()).values()) == [12, 24, 100]
    medians = list(asked(shared_pool, metric_id, "p50", 60, ()).values())
    base = 2 ** (2.0**-scale)
    for median, true in zip(medians, [3, 12, 50], strict=True):
        assert true / base <= median <= true * base


def test_quantiles_of_a_summary_are_weighted_by_counts(shared_pool: StoragePool) -> None:
    metric_id = stored(shared_pool, "summary", "unspecified", [], a_number)
    rows = [
        {
            "metric_id": metric_id,
            "timestamp": START + at * SECOND,
            "start_timestamp": START + begun * SECOND,
            "count": count,
            "sum": float(total),
            "quantiles": [{"quantile": 0.5, "value": median}],
        }
        for at, begun, count, total, median in (
            (-9, -10, 5, 50, 1.0),
            (5, -10, 7, 90, 2.0),
            (10, -10, 13, 120, 6.0),
            (70, 65, 2, 20, 9.0),
        )
    ]
    CopyWriter(shared_pool).write_data_points(rows)
    assert list(asked(shared_pool, metric_id, "count", 60, ()).values()) == [8, 2]
    assert list(asked(shared_pool, metric_id, "sum", 60, ()).values()) == [70, 20]
    assert list(asked(shared_pool, metric_id, "p50", 60, ()).values()) == [
        pytest.approx((2 * 2.0 + 6 * 6.0) / 8),
        9.0,
    ]
