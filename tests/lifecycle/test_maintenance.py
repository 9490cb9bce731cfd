"""`StoragePool.maintain`: one run at a time, bounded, stored, and whole when a step fails."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime, timedelta

import pytest

from observatory_storage import (
    MaintenanceError,
    PoolConfig,
    PoolError,
    PostgresConfig,
    RetentionConfig,
    StorageConfig,
    StorageError,
    StoragePool,
    ValidationError,
)
from observatory_storage.lifecycle.maintenance import Step, last_runs, run_steps
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.storing import SettledUsage
from tests.lifecycle.days import a_call, noon, traces_in, write_spans
from tests.writers.helpers import eventually

DONE = SettledUsage(traces=2, changed_traces=1)


def failing(_: Run) -> SettledUsage:
    raise StorageError("the disk is full")


def test_a_run_is_reported_and_stored(pool: StoragePool) -> None:
    report = pool.maintain()
    assert not report.is_skipped
    assert not report.left
    assert report.started_at <= report.finished_at
    (stored,) = last_runs(pool)
    assert [step["name"] for step in stored.steps] == [step.name for step in report.steps]
    assert stored.finished_at == report.finished_at
    assert stored.error is None


def test_a_second_run_at_the_same_time_is_skipped(pool: StoragePool) -> None:
    begun, end = threading.Event(), threading.Event()

    def wait(_: Run) -> SettledUsage:
        begun.set()
        assert end.wait(30)
        return DONE

    first = threading.Thread(target=run_steps, args=(Run(pool), [("wait", wait)]))
    first.start()
    assert begun.wait(30)
    try:
        assert pool.maintain().is_skipped
    finally:
        end.set()
        first.join()
    assert not pool.maintain().is_skipped


def test_a_failing_step_leaves_the_others_alone(pool: StoragePool) -> None:
    steps: list[Step] = [("one", failing), ("two", lambda _: DONE)]
    with pytest.raises(MaintenanceError, match=r"^one: the disk is full$") as caught:
        run_steps(Run(pool), steps)
    one, two = caught.value.report.steps
    assert str(one.error) == "the disk is full"
    assert two.result == DONE
    assert not caught.value.retryable
    (stored,) = last_runs(pool)
    assert stored.error == "one: the disk is full"
    assert stored.steps[1]["result"] == DONE.to_dict()
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.retryable) == (str(caught.value), caught.value.retryable)


def test_steps_are_left_when_the_time_is_over(pool: StoragePool) -> None:
    run = Run(pool, deadline=Deadline(0))
    report = run_steps(run, [("one", lambda _: DONE), ("two", lambda _: DONE)])
    assert report.left == ("one", "two")
    assert report.steps == ()


def test_what_was_left_comes_first_in_the_next_run(pool: StoragePool) -> None:
    order: list[str] = []

    def note(name: str, *, last: bool = False) -> Step:
        def work(run: Run) -> SettledUsage:
            order.append(name)
            if last:
                eventually(lambda: run.deadline.is_over)
            return DONE

        return name, work

    first = run_steps(Run.of(pool, 0.5), [note("a", last=True), note("b"), note("c")])
    assert first.left == ("b", "c")
    steps = [note("a"), note("b"), note("c")]
    assert [step.name for step in run_steps(Run(pool), steps).steps] == ["b", "c", "a"]
    assert [step.name for step in run_steps(Run(pool), steps).steps] == ["a", "b", "c"]
    assert order == ["a", "b", "c", "a", "a", "b", "c"]


def test_a_run_is_skipped_after_a_recent_one(pool: StoragePool) -> None:
    steps: list[Step] = [("one", lambda _: DONE)]
    minute = timedelta(minutes=1)
    assert not run_steps(Run(pool), steps, min_interval=minute).is_skipped
    assert run_steps(Run(pool), steps, min_interval=minute).is_skipped
    assert not run_steps(Run(pool), steps, min_interval=timedelta(0)).is_skipped


def test_runs_of_more_than_a_month_ago_are_forgotten(pool: StoragePool) -> None:
    pool.maintain()
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE maintenance_runs SET started_at = now() - interval '31 days'"
        )
    pool.maintain()
    assert len(last_runs(pool, limit=10)) == 1


def test_what_is_not_a_time_is_refused(pool: StoragePool) -> None:
    for seconds in (-1, float("nan"), float("inf"), True):
        with pytest.raises(ValidationError, match="for_secs"):
            pool.maintain(seconds)
    with pytest.raises(ValidationError, match="now"):
        pool.maintain(now=datetime(2026, 1, 31))  # noqa: DTZ001 - that is what is refused
    assert pool.maintain(5, now=datetime(2026, 1, 31, tzinfo=UTC)).steps


def test_a_pool_with_too_few_connections_is_refused(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url), pool=PoolConfig(max_connections=2)
    )
    with StoragePool(config) as pool, pytest.raises(PoolError, match="max_connections"):
        pool.maintain()


def test_three_connections_are_enough(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=3, acquire_timeout_secs=5),
        retention=RetentionConfig(traces=timedelta(days=2), logs=timedelta(days=2)),
    )
    with StoragePool(config) as pool:
        write_spans(pool, *(a_call(day, 1, noon(day)) for day in range(1, 6)))
        report = pool.maintain()
        assert report.left == ()
        assert traces_in(pool) == {1, 2}


def test_the_lock_of_a_run_holds_no_snapshot(pool: StoragePool) -> None:
    found: list[object] = []

    def look(run: Run) -> SettledUsage:
        with run.source.engine.connect() as connection:
            found.extend(
                connection.exec_driver_sql(
                    "SELECT backend_xmin FROM pg_stat_activity JOIN pg_locks USING (pid)"
                    " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                    " AND datname = current_database() AND backend_type = 'client backend'"
                ).scalars()
            )
        return DONE

    run_steps(Run(pool), [("look", look)])
    assert found == [None]
