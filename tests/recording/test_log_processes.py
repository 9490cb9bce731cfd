"""Log records of processes that configure logging, fork, or end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from observatory_storage import LogRecord, StorageHandler, StoragePool, observe
from tests.writers.helpers import count, fetch, fork, wait_for


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_stores_its_own_records(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    logger.info("before")

    def in_child() -> None:
        with observe(pool, name="step"):
            logger.info("child")
        logging.shutdown()
        pool.close()

    wait_for(fork(in_child))
    logger.info("parent")
    handler.flush()
    rows = fetch(pool, LogRecord)
    assert sorted(row["body"] for row in rows) == ["before", "child", "parent"]
    assert len({row["resource_attributes"]["process.pid"] for row in rows}) == 2
    assert count(pool, "trace_spans") == 1


PROGRAM = """
import json, logging, logging.config, sys, threading
from observatory_storage import observe, observe_llm
logging.config.dictConfig({
    "version": 1,
    "handlers": {"storage": {"class": "observatory_storage.StorageHandler", "service_name": "shop",
                             "flush_interval_secs": 60}},
    "root": {"level": "INFO", "handlers": ["storage"]},
})
log = logging.getLogger("shop")
with observe(name="step"), observe_llm(model="gpt-5"):
    log.info("one")
"""
ENDS = {
    "plain": "",
    "raised": "raise SystemExit(3)",
    "crashed": "1 / 0",
    "thread": "threading.Thread(target=log.info, args=('two',)).start()",
    "configured again": "logging.config.dictConfig({'version': 1})",
}


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_process_flushes(pool: StoragePool, database_url: str, end: str) -> None:
    done = run(PROGRAM + ENDS[end], database_url)
    assert done.returncode == {"raised": 3, "crashed": 1}.get(end, 0)
    assert "observatory" not in done.stderr
    assert count(pool, "logs") == (2 if end == "thread" else 1)
    assert count(pool, "trace_spans") == 2


def test_the_end_of_a_process_does_not_wait_for_a_database_that_is_away() -> None:
    away = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
    done = run(PROGRAM, away)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line == "observatory_storage: 1 log record could not be stored: the process ends"


def test_a_configuration_names_a_function_that_returns_the_pool(
    pool: StoragePool, database_url: str
) -> None:
    program = """
import logging.config
from observatory_storage import StoragePool
def get_pool():
    if "made" not in globals():
        globals()["made"] = StoragePool.from_env(connect=False)
    return made
handler = {"class": "observatory_storage.StorageHandler", "pool": "ext://__main__.get_pool"}
root = {"level": "INFO", "handlers": ["storage"]}
logging.config.dictConfig({"version": 1, "handlers": {"storage": handler}, "root": root})
assert "made" not in globals()
logging.info("paid")
"""
    ran = run(program, database_url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [row["body"] for row in fetch(pool, LogRecord)] == ["paid"]


@pytest.mark.parametrize("arguments", ["pool='nonsense'", "extra=3", "level='LOUD'"])
def test_a_refused_argument_is_the_only_error(arguments: str) -> None:
    program = f"""
from observatory_storage import StorageHandler
try:
    StorageHandler({arguments})
except ValueError as error:
    kept = error  # and with it the handler, until the process ends
"""
    ran = run(program, "")
    assert (ran.returncode, ran.stderr) == (0, "")


GEVENT = (
    """
from gevent import monkey; monkey.patch_all()
import gevent
"""
    + PROGRAM
    + """
def work(number):
    with observe(name=f"step {number}") as step:
        gevent.sleep(0)
        log.info("%d", number)
        assert step is not None
gevent.joinall([gevent.spawn(work, number) for number in range(5)], raise_error=True)
"""
)


def test_gevent(pool: StoragePool, database_url: str) -> None:
    done = run(GEVENT, database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert count(pool, "logs") == 6
    assert count(pool, "trace_spans") == 7
