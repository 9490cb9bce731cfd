"""The pool maintains the store by itself, if it is told to."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from observatory_storage import (
    CopyWriter,
    MaintenanceConfig,
    PostgresConfig,
    StorageConfig,
    StoragePool,
)
from observatory_storage.lifecycle.maintenance import last_runs
from tests.writers.helpers import a_log

NAME = "observatory_storage maintenance"


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.01)


def background(database_url: str) -> StoragePool:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        maintenance=MaintenanceConfig(background=True, interval=timedelta(seconds=1)),
    )
    return StoragePool(config)


def test_a_thread_maintains_the_store_until_the_pool_is_closed(database_url: str) -> None:
    with background(database_url) as pool:
        pool.health_check()
        (thread,) = threads()
        wait_until(lambda: len(last_runs(pool, 9)) >= 2)
        pool.health_check()
        assert threads() == [thread]
    assert threads() == []


def test_a_process_that_only_writes_has_the_thread_too(database_url: str) -> None:
    with background(database_url) as pool:
        CopyWriter(pool).write_logs([a_log()])
        wait_until(lambda: bool(threads()))


def test_pools_of_several_processes_take_turns(database_url: str) -> None:
    with background(database_url) as one, background(database_url) as two:
        one.health_check()
        two.health_check()
        wait_until(lambda: len(last_runs(one, 9)) >= 2)
        first, second = (run.started_at for run in reversed(last_runs(one, 9)[-2:]))
    assert second - first >= timedelta(seconds=0.9)


def test_a_forked_child_has_a_thread_of_its_own(database_url: str) -> None:
    with background(database_url) as pool:
        wait_until(lambda: bool(last_runs(pool)))
        child = os.fork()
        if child == 0:
            inherited = len(threads())
            pool.health_check()
            os._exit(0 if (inherited, len(threads())) == (0, 1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_thread_ends_with_a_pool_that_is_dropped(database_url: str) -> None:
    pool: StoragePool | None = background(database_url)
    assert pool is not None
    pool.health_check()
    wait_until(lambda: bool(threads()))
    engine = pool.engine
    pool = None
    gc.collect()
    wait_until(lambda: not threads())
    engine.dispose()


def test_without_the_setting_there_is_no_thread(pool: StoragePool) -> None:
    pool.health_check()
    assert threads() == []
