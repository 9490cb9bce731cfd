"""Hooks hear once of each trace, span and user that passes a bound."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    CopyWriter,
    PoolError,
    PostgresConfig,
    SpanDuration,
    StorageConfig,
    StoragePool,
    ThresholdPassed,
    TraceCost,
    TraceWriter,
    UserSpend,
    ValidationError,
)
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from tests.repositories.samples import START, a_span, trace_key
from tests.streams.conftest import OpenPool

HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


def test_trace_is_told_once_when_its_spans_cost_too_much(pool: StoragePool) -> None:
    told: list[ThresholdPassed] = []
    with pool.watch(told.append, TraceCost(1)) as watch, TraceWriter(pool) as writer:
        for number in range(1, 5):
            writer.write_span(a_span(1, number, total_cost_usd=Decimal("0.5")))
            writer.write_span(a_span(2, 10 + number, total_cost_usd=Decimal("0.25")))
            writer.flush()
            assert watch.flush()
    (passed,) = told
    assert (passed.subject, passed.value) == (trace_key(1), Decimal("1.5"))
    assert passed.trace_id is not None
    assert passed.trace_id.hex == trace_key(1)


def test_span_is_told_when_it_takes_longer(pool: StoragePool) -> None:
    told: list[ThresholdPassed] = []
    with pool.watch(told.append, SpanDuration(2), SpanDuration(timedelta(minutes=1))):
        CopyWriter(pool).write_spans(
            [
                a_span(1, 1, end_time=START + timedelta(seconds=2)),
                a_span(1, 2, end_time=START + timedelta(seconds=2), end_ns=1),
                a_span(1, 3, end_time=START + timedelta(seconds=61)),
                a_span(1, 4, end_time=None),
            ]
        )
    found = [(one.subject, one.value, one.threshold) for one in told]
    assert found == [
        (f"{2:016x}", timedelta(seconds=2), SpanDuration(2)),
        (f"{3:016x}", timedelta(seconds=61), SpanDuration(2)),
        (f"{3:016x}", timedelta(seconds=61), SpanDuration(60)),
    ]


@pytest.mark.parametrize("is_rolled", [False, True])
def test_user_is_told_once_when_the_window_costs_too_much(
    pool: StoragePool, is_rolled: bool
) -> None:
    told: list[ThresholdPassed] = []

    def spend(number: int, user: str, start: datetime) -> None:
        span = a_span(number, number, start, user_id=user, total_cost_usd=Decimal(4))
        CopyWriter(pool).write_spans([span])

    spend(1, "ada", now() - 30 * HOUR)  # before the window
    spend(2, "ada", now() - 20 * HOUR)
    spend(3, "ada", now() - 10 * HOUR)
    spend(4, "bob", now() - 10 * HOUR)
    if is_rolled:
        refresh_rollups(Run(pool))
    with pool.watch(told.append, UserSpend(10, window=24 * HOUR)) as watch:
        spend(5, "bob", now())
        assert watch.flush()
        assert not told
        for number in (6, 7):
            spend(number, "ada", now())
            assert watch.flush()
    assert [(one.subject, one.value, one.trace_id) for one in told] == [("ada", Decimal(12), None)]


def test_processes_tell_the_same_once_with_redis(open_pool: OpenPool, redis_url: str) -> None:
    told: list[ThresholdPassed] = []
    pools = [open_pool(redis_url, signals=[]) for _ in range(2)]
    for pool in pools:
        with pool.watch(told.append, TraceCost(1)):
            CopyWriter(pool).write_spans([a_span(1, id(pool) % 999 + 1, total_cost_usd=2)])
    assert len(told) == 1


def test_each_watch_of_a_process_is_told_with_redis(open_pool: OpenPool, redis_url: str) -> None:
    told: list[str] = []

    def one(_: ThresholdPassed) -> None:
        told.append("one")

    def other(_: ThresholdPassed) -> None:
        told.append("other")

    pool = open_pool(redis_url, signals=[])
    with (
        pool.watch(one, TraceCost(1)),
        pool.watch(one, TraceCost(1)),
        pool.watch(other, TraceCost(1)),
    ):
        CopyWriter(pool).write_spans([a_span(1, 1, total_cost_usd=2)])
    assert sorted(told) == ["one", "one", "other"]


@pytest.mark.parametrize(("names", "times"), [(("a", "a"), 1), (("a", "b"), 2)])
def test_name_of_a_watch_says_which_are_the_same(
    open_pool: OpenPool, redis_url: str, names: tuple[str, str], times: int
) -> None:
    told: list[ThresholdPassed] = []
    for number, name in enumerate(names, 1):
        pool = open_pool(redis_url, signals=[])
        with pool.watch(told.append, TraceCost(1), name=name):
            CopyWriter(pool).write_spans([a_span(1, number, total_cost_usd=2)])
    assert len(told) == times


def test_error_of_a_hook_is_logged(pool: StoragePool, caplog: pytest.LogCaptureFixture) -> None:
    told: list[ThresholdPassed] = []

    def hook(passed: ThresholdPassed) -> None:
        told.append(passed)
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR), pool.watch(hook, TraceCost(1)):
        CopyWriter(pool).write_spans([a_span(n, n, total_cost_usd=2) for n in (1, 2)])
    assert len(told) == 2
    assert "the hook of a threshold failed" in caplog.text


def test_commit_above_the_bound_is_compared_if_no_other_waits(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("observatory_storage.streams.watcher._MOST_WAITING", 2)
    told: list[str] = []
    reached, released = threading.Event(), threading.Event()

    def hook(passed: ThresholdPassed) -> None:
        told.append(passed.subject)
        reached.set()
        released.wait(30)

    with pool.watch(hook, TraceCost(1)) as watch:
        for traces in ([1, 2, 3], [4], [5, 6]):
            CopyWriter(pool).write_spans([a_span(n, n, total_cost_usd=2) for n in traces])
            assert reached.wait(30)
        released.set()
        assert watch.flush()
    assert sorted(told) == sorted(trace_key(n) for n in (1, 2, 3, 4))
    assert "2 spans are not compared with thresholds" in caplog.text


def test_nothing_is_told_after_the_watch(pool: StoragePool) -> None:
    told: list[ThresholdPassed] = []
    with pool.watch(told.append, TraceCost(1)):
        assert pool.commits
    CopyWriter(pool).write_spans([a_span(1, 1, total_cost_usd=2)])
    assert not told
    assert not pool.commits


def test_costs_are_compared_when_the_database_answers_again(
    embedded_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observatory_storage.streams.watcher._AFTER_FAILURE_SECS", 0.1)
    told: list[ThresholdPassed] = []
    config = StorageConfig(postgres=PostgresConfig.from_url(embedded_server.url))
    with StoragePool(config) as pool:
        pool.run_migrations()
        with pool.watch(told.append, TraceCost(1)) as watch:
            with pool.unit_of_work() as work:
                CopyWriter(work).write_spans([a_span(1, 1, total_cost_usd=2)])
                work.commit()
                embedded_server.stop()
            watch.flush(0.5)
            embedded_server.start()
            assert watch.flush(30)
    assert [one.subject for one in told] == [trace_key(1)]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TraceCost(-1), "max_usd"),
        (lambda: TraceCost(float("nan")), "max_usd"),
        (lambda: SpanDuration(0), "maximum"),
        (lambda: UserSpend(1, window=timedelta(0)), "window"),
    ],
)
def test_wrong_bounds_are_named(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        make()


def test_watch_needs_thresholds(pool: StoragePool) -> None:
    for thresholds in ((), (1,)):
        with pytest.raises(ValidationError, match="thresholds"):
            pool.watch(print, *thresholds)


def test_watch_needs_a_hook_that_can_be_called(pool: StoragePool) -> None:
    with pytest.raises(ValidationError, match="hook=None: must be callable"):
        pool.watch(None, TraceCost(1))  # type: ignore[arg-type]  # what is tested


def test_closed_pool_is_not_watched(pool: StoragePool) -> None:
    pool.close()
    with pytest.raises(PoolError, match="the pool is closed"):
        pool.watch(print, TraceCost(1))


def test_name_of_a_watch_must_not_be_empty(pool: StoragePool) -> None:
    with pytest.raises(ValidationError, match="name='': must not be empty"):
        pool.watch(print, TraceCost(1), name="")
