"""Forks two workers that use the store, and scrapes while they live and after they have ended.

Run with ``PROMETHEUS_MULTIPROC_DIR`` and ``DATABASE_URL``. Prints both scrapes as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

from prometheus_client import CollectorRegistry, multiprocess

from observatory_storage import CopyWriter, LogWriter, PrometheusHook, StoragePool, WriterConfig
from tests.writers.helpers import a_log

EXPECTED = (
    'storage_pool_connections{state="active"} 2.0',
    'storage_buffer_size{signal="logs"} 4.0',
)

hook = PrometheusHook(CollectorRegistry())
pool = StoragePool.from_env(hooks=[hook])


def work(number: int, ready: int, end: int) -> None:
    """Use the store as a worker does, and hold a connection until told to end."""
    CopyWriter(pool).write_logs([a_log(number)])
    writer = LogWriter(pool, WriterConfig(flush_interval_secs=None))
    writer.write_logs([a_log(10), a_log(11)])
    with pool.engine.connect():
        os.write(ready, b"x")
        os.read(end, 1)
    os._exit(0)


def main() -> None:
    ready, is_ready = os.pipe()
    end, tell = os.pipe()
    children = []
    for number in (1, 2):
        child = os.fork()
        if child == 0:
            work(number, is_ready, end)
        children.append(child)
    for _ in children:
        os.read(ready, 1)
    CopyWriter(pool).write_logs([a_log(3)])
    deadline = time.monotonic() + 60
    scrapes = [hook.exposition()[0].decode()]
    # Until the threads of the workers have set their values.
    while not all(each in scrapes[0] for each in EXPECTED):
        assert time.monotonic() < deadline, scrapes[0]
        time.sleep(0.2)
        scrapes[0] = hook.exposition()[0].decode()
    os.write(tell, b"xx")
    for child in children:
        os.waitpid(child, 0)
        multiprocess.mark_process_dead(child)  # type: ignore[no-untyped-call]
    scrapes.append(hook.exposition()[0].decode())
    pool.close()
    json.dump(scrapes, sys.stdout)


main()
