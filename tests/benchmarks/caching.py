"""Measures reads through the cache beside those from PostgreSQL, and reads while Redis fails.

``python -m tests.benchmarks.caching [reading | failing]`` runs it on servers of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any, Final

import redis
from pydantic import SecretStr

from observatory_embedded import EmbeddedPostgres, EmbeddedValkey
from observatory_storage import (
    CacheConfig,
    CopyWriter,
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    StorageConfig,
    StoragePool,
    UnitOfWork,
)
from tests.benchmarks.measure import own_heap_frozen, percentile
from tests.benchmarks.texts import prompts
from tests.benchmarks.workload import Workload, wide_spans

__all__ = ["Compared", "compare_reads", "main", "reads_while_failing"]

_TRACES: Final = 10
_SPANS_A_TRACE: Final = 200
_WARM_UP: Final = 20
Ask = Callable[[UnitOfWork, str], Any]
_READERS: Final[dict[str, Ask]] = {
    "get_spans": lambda uow, key: uow.traces.get_spans(key),
    "get_spans, and all attributes": lambda uow, key: [
        span.attributes for span in uow.traces.get_spans(key)
    ],
    "get_spans(with_events=True)": lambda uow, key: uow.traces.get_spans(key, with_events=True),
    "services": lambda uow, _: uow.traces.services(),
    "get_stats by model": lambda uow, _: uow.traces.get_stats(group_by="model"),
    "get_cost_summary": lambda uow, _: uow.metrics.get_cost_summary(),
}


@dataclass(frozen=True)
class Compared:
    """One reader: the medians of reads from PostgreSQL and of hits, in turn.

    Attributes:
        ratio: how many times faster a hit is.
    """

    workload: str
    reader: str
    postgres_ms: float
    cached_ms: float
    ratio: float


def main(given: Sequence[str] | None = None) -> None:
    """Measure what the arguments name, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["reading", "failing"], nargs="?", default="reading")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--traces", type=int, default=_TRACES)
    arguments = parser.parse_args(given)
    for made in (prompts, wide_spans) if arguments.part == "reading" else (prompts,):
        load = made(arguments.traces * _SPANS_A_TRACE)
        with EmbeddedPostgres() as server, EmbeddedValkey() as valkey:
            keys = _stored(server.url, load)
            if arguments.part == "failing":
                reads_while_failing(server.url, valkey, keys, arguments.rounds, print)
                continue
            for recheck in (timedelta(seconds=5), timedelta(0)):
                print(f"compared with the rows again after {recheck.total_seconds():.0f} s:")
                with (
                    _pool(server.url) as plain,
                    _pool(server.url, valkey.url, traces_recheck=recheck) as cached,
                ):
                    for one in compare_reads((plain, cached), load, keys, arguments.rounds):
                        print(
                            f"  {one.workload:24} {one.reader:32} {one.postgres_ms:8.2f} ms"
                            f" {one.cached_ms:8.2f} ms cached {one.ratio:6.1f} x"
                        )


def _stored(url: str, load: Workload) -> list[str]:
    """Store the spans as traces of 200; return the ids of these."""
    for index, row in enumerate(load.rows):
        row["trace_id"] = f"{index // _SPANS_A_TRACE + 1:032x}"
    with _pool(url) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_spans(load.rows)
        with pool.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
    return list(dict.fromkeys(row["trace_id"] for row in load.rows))


def _pool(url: str, redis_url: str | None = None, **settings: Any) -> StoragePool:
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url),
            pool=PoolConfig(min_connections=1),
            redis=RedisConfig(url=SecretStr(redis_url) if redis_url else None),
            cache=CacheConfig(**settings),
        )
    )


def compare_reads(
    pools: tuple[StoragePool, StoragePool], load: Workload, keys: Sequence[str], rounds: int
) -> list[Compared]:
    """Read by a pool without a cache, and by one with a cache, in turn."""
    found = []
    for name, ask in _READERS.items():
        times: list[list[float]] = [[], []]
        with own_heap_frozen():
            for turn in range(-_WARM_UP, rounds):
                key = keys[turn % len(keys)]
                for which in (0, 1) if turn % 2 else (1, 0):
                    took = _timed(pools[which], ask, key)
                    if turn >= 0:
                        times[which].append(took)
        postgres, hits = map(median, times)
        found.append(Compared(load.name, name, postgres, hits, postgres / hits))
    return found


def _timed(pool: StoragePool, ask: Ask, key: str) -> float:
    """How many milliseconds a read takes."""
    with pool.unit_of_work() as uow:
        started = time.perf_counter()
        ask(uow, key)
        return 1000 * (time.perf_counter() - started)


def reads_while_failing(
    url: str,
    valkey: EmbeddedValkey,
    keys: Sequence[str],
    rounds: int,
    say: Callable[[str], object],
) -> None:
    """Time reads of pools that find Redis failing: while they still ask it, and afterwards."""
    ask = _READERS["get_spans"]
    with _pool(url) as plain:
        times = [_timed(plain, ask, keys[turn % len(keys)]) for turn in range(rounds)]
        say(f"without a cache: p50 {median(times):.1f} ms, p95 {percentile(times, 0.95):.1f} ms")
    for name, failure in _FAILURES.items():
        asking: list[float] = []
        open_: list[float] = []
        while len(asking) < rounds:
            with ExitStack() as stack:
                # Each pool asks Redis a few times before it stops to.
                pools = [stack.enter_context(_pool(url, valkey.url)) for _ in range(10)]
                for pool in pools:
                    for key in keys[:2]:
                        _timed(pool, ask, key)
                with failure(valkey):
                    for pool in pools:
                        for turn in range(6):
                            is_open = pool.cache.stats().is_open
                            took = _timed(pool, ask, keys[turn % len(keys)])
                            (open_ if is_open else asking).append(took)
        told = f"p50 {median(asking):.1f} ms, p95 {percentile(asking, 0.95):.1f} ms"
        if open_:
            told += f"; open: p50 {median(open_):.1f} ms, p95 {percentile(open_, 0.95):.1f} ms"
        say(f"{name}: {told} ({len(asking)} and {len(open_)} reads)")


@contextmanager
def _stopped(valkey: EmbeddedValkey) -> Iterator[None]:
    valkey.stop()
    try:
        yield
    finally:
        valkey.start()


@contextmanager
def _paused(valkey: EmbeddedValkey) -> Iterator[None]:
    with redis.Redis.from_url(valkey.url) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextmanager
def _full(valkey: EmbeddedValkey) -> Iterator[None]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


_FAILURES: Final = {"stopped": _stopped, "paused": _paused, "refusing writes": _full}

if __name__ == "__main__":
    main()
