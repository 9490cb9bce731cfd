"""Many logs through a stream: consumers that are killed, and a Redis that is restarted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import LogWriter, StoragePool, WriterConfig
from tests.repositories.samples import a_log
from tests.soak.scale import scaled
from tests.streams.live import live_config

LOGS = scaled(1_500, 100_000)


def write(pool: StoragePool, numbers: Sequence[int]) -> None:
    with LogWriter(pool, WriterConfig(batch_size=1_000)) as writer:
        for number in numbers:
            writer.write_log(a_log(number, span_id=f"{number:016x}"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def processes(folder: Path, *commands: Sequence[str], **settings: str) -> Iterator[list[Path]]:
    """Runs each command with its output in a file. Yields the files."""
    files = [folder / f"out{number}" for number in range(len(commands))]
    running = []
    for file, command in zip(files, commands, strict=True):
        with file.open("wb") as out:
            running.append(subprocess.Popen(command, stdout=out, env={**os.environ, **settings}))
    kill[:] = [process.kill for process in running]
    try:
        yield files
    finally:
        for process in running:
            process.kill()
            process.wait()


def consumers_of(client: Redis) -> list[object]:
    """The consumers of the group of the only stream, if it exists."""
    streams = [*client.scan_iter("*:stream:*")]
    if not streams or not client.xinfo_groups(streams[0]):
        return []
    return list(client.xinfo_consumers(streams[0], "g"))


kill: list[Callable[[], None]] = []
"""Kills each process of `processes` with SIGKILL."""


def test_each_log_is_handled_by_a_consumer_of_the_group_though_one_is_killed(
    database_url: str, embedded_redis: EmbeddedValkey, tmp_path: Path
) -> None:
    options = json.dumps({"claim_after": 2, "pause": 0})
    consumer = [sys.executable, "-m", "tests.streams.consumer", database_url, embedded_redis.url]
    handled = [tmp_path / f"handled{number}" for number in range(3)]
    for file in handled:
        file.touch()
    commands = [[*consumer, str(file), options] for file in handled]

    def numbers_in(file: Path) -> list[int]:
        return [int(line) for line in file.read_text().split("\n")[:-1]]

    config = live_config(database_url, embedded_redis.url, signals=("logs",))
    with (
        StoragePool(config) as pool,
        Redis.from_url(embedded_redis.url) as client,
        processes(tmp_path, *commands),
    ):
        write(pool, [1])
        # Otherwise the first one to start might handle all of them.
        wait_until(lambda: len(consumers_of(client)) == len(commands))
        writer = threading.Thread(target=write, args=(pool, range(2, LOGS + 1)))
        writer.start()
        wait_until(lambda: handled[0].stat().st_size > LOGS // 10)
        kill[0]()
        writer.join()
        every = set(range(1, LOGS + 1))
        wait_until(lambda: {n for file in handled for n in numbers_in(file)} == every)
        stats = pool.stream_stats()
    times = Counter(n for file in handled for n in numbers_in(file))
    repeated = sum(count - 1 for count in times.values())
    print(f"{LOGS=} {repeated=} {[len(numbers_in(file)) for file in handled]}")
    assert stats.lost_rows == 0
    assert repeated <= 100  # the entry that the killed consumer had begun
    assert all(numbers_in(file) for file in handled)


def test_tail_prints_each_log_once_though_redis_is_restarted(
    database_url: str, embedded_redis: EmbeddedValkey, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "observatory_storage", "tail", "logs", "--json"]
    settings = {"DATABASE_URL": database_url, "REDIS_URL": embedded_redis.url}
    config = live_config(database_url, embedded_redis.url, signals=("logs",))
    with StoragePool(config) as pool, processes(tmp_path, command, **settings) as (out,):
        number = 0
        while not out.stat().st_size:  # until it follows
            number -= 1
            write(pool, [LOGS - number])
            time.sleep(0.3)
        first = range(1, LOGS // 3)
        second = range(LOGS // 3, 2 * LOGS // 3)
        write(pool, first)
        embedded_redis.kill()
        write(pool, second)
        embedded_redis.start()
        write(pool, range(2 * LOGS // 3, LOGS + 1))

        def printed() -> list[int]:
            lines = out.read_text().split("\n")[:-1]
            return [int(json.loads(line)["span_id"], 16) for line in lines]

        wait_until(lambda: len(printed()) >= LOGS)
        wait_until(lambda: set(range(1, LOGS + 1)) <= set(printed()))
        times = Counter(printed())
        lost = pool.stream_stats().lost_rows
    print(f"{LOGS=} {lost=}")
    assert set(times.values()) == {1}
