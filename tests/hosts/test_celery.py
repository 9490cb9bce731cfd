"""What Celery's tasks have written is stored when their workers end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from observatory_storage import StoragePool
from observatory_storage.lifecycle.maintenance import last_runs
from tests.hosts.hosting import names_stored, program, running, wait_until

TASKS = 4
WRITES = ["write"] * TASKS


@contextmanager
def worker(
    options: tuple[str, ...], url: str, broker: str, *tasks: str, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    command = [program("celery"), "-A", "tests.hosts.celery_application", "worker", "-l", "INFO"]
    # It would wait a second for the answers of other workers, of which there are none.
    command += ["--without-mingle"]
    settings |= {"BROKER_URL": broker, "TASKS": " ".join(tasks)}
    # Run as root, Celery refuses only pickle, which is not used here.
    with running([*command, *options], url, **settings) as found:
        yield found


def succeeded(output: Path) -> int:
    return output.read_text(errors="replace").count(" succeeded in ")


@pytest.fixture
def broker(redis_url: str) -> Iterator[str]:
    yield redis_url.replace("unix://", "redis+socket://")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


# Further pools are ended so by `test_a_worker_that_restarts_itself_on_hup`.
@pytest.mark.parametrize(
    "options",
    [
        ("--pool", "prefork", "-c", "2", "--max-tasks-per-child", "1"),
        ("--pool", "threads", "-c", "2"),
        ("--pool", "gevent", "-c", "2"),
    ],
    ids=" ".join,
)
def test_a_warm_shutdown(options: tuple[str, ...], database_url: str, broker: str) -> None:
    with worker(options, database_url, broker, *WRITES) as (process, output):
        wait_until(lambda: succeeded(output) == TASKS, process, output)
        process.terminate()
        process.wait(60)
    assert names_stored(database_url) == {"written": TASKS}


@pytest.mark.parametrize(("signal_", "soft_secs"), [(signal.SIGQUIT, 0), (signal.SIGQUIT, 3)])
def test_a_cold_and_a_soft_shutdown(
    signal_: int, soft_secs: int, database_url: str, broker: str
) -> None:
    settings = {"SOFT_SHUTDOWN_SECS": str(soft_secs)}
    options = ("--pool", "prefork", "-c", "2")
    with worker(options, database_url, broker, *WRITES, **settings) as (process, output):
        wait_until(lambda: succeeded(output) == TASKS, process, output)
        process.send_signal(signal_)
        process.wait(60)
    assert names_stored(database_url) == {"written": TASKS}


def test_spans_in_a_processor_of_opentelemetry(database_url: str, broker: str) -> None:
    options = ("--pool", "prefork", "-c", "2")
    settings = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    tasks = ["trace"] * TASKS
    with worker(options, database_url, broker, *tasks, **settings) as (process, output):
        wait_until(lambda: succeeded(output) == TASKS, process, output)
        process.terminate()
        process.wait(60)
    assert names_stored(database_url) == {"traced": TASKS}


@pytest.mark.parametrize(
    "options", [("--pool", "prefork", "-c", "2"), ("--pool", "solo")], ids=" ".join
)
def test_a_worker_that_restarts_itself_on_hup(
    options: tuple[str, ...], database_url: str, broker: str
) -> None:
    with worker(options, database_url, broker, *WRITES) as (process, output):
        wait_until(lambda: succeeded(output) == TASKS, process, output)
        process.send_signal(signal.SIGHUP)
        # The new worker, in the same process, gets as many tasks, and keeps what they write.
        wait_until(lambda: succeeded(output) == 2 * TASKS, process, output)
        assert names_stored(database_url) == {"written": TASKS}
        process.terminate()
        process.wait(60)
    assert names_stored(database_url) == {"written": 2 * TASKS}


def test_a_task_that_is_killed_loses_only_what_it_had_not_flushed(
    database_url: str, broker: str
) -> None:
    options = ("--pool", "prefork", "-c", "1")
    with worker(options, database_url, broker, "hang", "write") as (process, output):
        # The child that takes the place of the killed one runs the second task.
        wait_until(lambda: succeeded(output) == 1, process, output)
        process.terminate()
        process.wait(60)
    stored = names_stored(database_url)
    # Whether a task that is killed can still flush depends on how Celery kills it.
    assert (stored["flushed"], stored["written"]) == (1, 1)


def test_rows_are_stored_after_each_task_if_asked(database_url: str, broker: str) -> None:
    options = ("--pool", "prefork", "-c", "2")
    with worker(options, database_url, broker, *WRITES, FLUSH_AFTER_TASK="1") as (process, output):
        wait_until(lambda: names_stored(database_url)["written"] == TASKS, process, output)
        assert "ERROR" not in output.read_text()


def test_beat_has_a_worker_maintain_the_store(
    pool: StoragePool, database_url: str, broker: str
) -> None:
    options = ("--pool", "prefork", "-c", "1", "-B", "-s", "schedule")
    with worker(options, database_url, broker, MAINTAIN_EVERY_SECS="1") as (process, output):
        wait_until(
            lambda: any(run.finished_at is not None for run in last_runs(pool, 2)), process, output
        )
        process.terminate()
        process.wait(60)
    assert all(run.error is None for run in last_runs(pool, 10))
