"""Consumers of a group: each row is handled by one of them, whatever becomes of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from redis import Redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import StoragePool, StreamGap
from tests.commands import wait_for
from tests.streams.conftest import OpenPool
from tests.streams.live import numbers_of, write_logs


def of_group(pool: StoragePool, consumer: str | None = None, **arguments: Any) -> list[int]:
    """What a consumer gets until nothing comes any more."""
    options: dict[str, Any] = {"after": "0", "group": "g", "timeout": 0.3, **arguments}
    with pool.stream("logs", consumer=consumer, **options) as stream:
        return numbers_of(stream)


def test_consumers_share_the_rows(live: StoragePool) -> None:
    write_logs(live, range(1, 501))
    options: dict[str, Any] = {"after": "0", "group": "g", "timeout": 0.3}
    with live.stream("logs", **options) as one, live.stream("logs", **options) as other:
        first, second = numbers_of(islice(one, 150)), numbers_of(islice(other, 150))
        rest = [*numbers_of(one), *numbers_of(other)]
    assert (len(first), len(second)) == (150, 150)
    assert sorted([*first, *second, *rest]) == [*range(1, 501)]


def test_groups_get_all_rows_each(live: StoragePool) -> None:
    write_logs(live, [1, 2])
    assert of_group(live, group="a") == of_group(live, group="b") == [1, 2]


def test_new_group_begins_with_new_rows_by_default(live: StoragePool) -> None:
    write_logs(live, [1])
    assert of_group(live, after=None) == []
    write_logs(live, [2])
    assert of_group(live, after=None) == [2]


def test_handled_rows_are_not_given_again(live: StoragePool) -> None:
    write_logs(live, [1, 2])
    assert of_group(live) == [1, 2]
    assert of_group(live) == []


def test_rows_that_no_filter_chooses_count_as_handled(live: StoragePool) -> None:
    write_logs(live, [1], severity_number=9)
    assert of_group(live, min_severity="error") == []
    assert of_group(live) == []


def test_consumer_that_comes_back_gets_what_it_has_not_acknowledged(live: StoragePool) -> None:
    write_logs(live, range(1, 201))
    with live.stream("logs", after="0", group="g", consumer="c", timeout=1) as stream:
        assert numbers_of(islice(stream, 130)) == [*range(1, 131)]
    # The first hundred were acknowledged when the next row was asked for.
    assert of_group(live, "c") == [*range(101, 201)]


def test_rows_of_a_dead_consumer_are_claimed(live: StoragePool) -> None:
    write_logs(live, range(1, 201))
    with live.stream("logs", after="0", group="g", timeout=1) as stream:
        next(stream)
    assert of_group(live, claim_after=60) == [*range(101, 201)]
    assert of_group(live, claim_after=0.1, timeout=1) == [*range(1, 101)]


def consumers_of(redis_url: str) -> list[tuple[str, int]]:
    """The names of the consumers that Redis knows, and how many entries each holds."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        (key,) = client.scan_iter("*:stream:*")
        return [(each["name"], each["pending"]) for each in client.xinfo_consumers(key, "g")]


def test_consumer_without_a_name_leaves_nothing_behind(live: StoragePool, redis_url: str) -> None:
    write_logs(live, [1, 2])
    assert of_group(live) == [1, 2]
    assert consumers_of(redis_url) == []
    assert of_group(live, "c") == []
    assert consumers_of(redis_url) == [("c", 0)]


def test_consumer_without_a_name_stays_while_it_holds_rows(
    live: StoragePool, redis_url: str
) -> None:
    write_logs(live, [1, 2])
    with live.stream("logs", after="0", group="g") as stream:
        next(stream)
    assert [pending for _, pending in consumers_of(redis_url)] == [1]
    assert of_group(live, claim_after=0.1, timeout=1) == [1, 2]


def test_slow_consumer_keeps_its_rows(live: StoragePool) -> None:
    write_logs(live, range(1, 11))
    options: dict[str, Any] = {"after": "0", "group": "g", "claim_after": 0.4, "timeout": 0.5}
    with live.stream("logs", **options) as slow:
        for entry in slow:
            # Longer than the time after which others claim, but not from row to row.
            assert of_group(live, claim_after=0.4, timeout=0.05) == []
            assert entry.row.span_id is not None


def test_row_whose_handling_fails_is_given_again(live: StoragePool) -> None:
    write_logs(live, [1])
    try:
        with live.stream("logs", after="0", group="g", consumer="c") as stream:
            for _ in stream:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert of_group(live, "c") == [1]


def test_group_is_made_anew_when_redis_has_lost_it(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey
) -> None:
    pool = open_pool(embedded_redis.url)
    write_logs(pool, [1])
    gaps: list[StreamGap] = []
    options: dict[str, Any] = {"after": "0", "group": "g", "timeout": 20, "on_gap": gaps.append}
    with pool.stream("logs", **options) as stream:
        assert numbers_of(islice(stream, 1)) == [1]
        embedded_redis.kill()
        embedded_redis.start()
        write_logs(pool, [2])
        assert numbers_of(islice(stream, 1)) == [2]
    assert gaps == [StreamGap("missing", None)]


def test_entries_that_were_trimmed_before_they_were_handled_are_told(
    live: StoragePool, redis_url: str
) -> None:
    write_logs(live, range(1, 201))
    with live.stream("logs", after="0", group="g", consumer="c") as stream:
        next(stream)
    with Redis.from_url(redis_url) as client:
        (key,) = client.scan_iter("*:stream:*")
        client.xtrim(key, 0)
    gaps: list[StreamGap] = []
    assert of_group(live, "c", on_gap=gaps.append) == []
    assert gaps == [StreamGap("missing", None)]
    assert of_group(live, "c", on_gap=gaps.append) == []
    assert len(gaps) == 1


@contextmanager
def consuming(database_url: str, redis_url: str, folder: Path) -> Iterator[Any]:
    """A process that consumes slowly, and writes the numbers that it has handled into a file."""
    out = folder / "handled"
    out.touch()
    command = [sys.executable, "-m", "tests.streams.consumer", database_url, redis_url, str(out)]
    process = subprocess.Popen([*command, json.dumps({"claim_after": 0.5})])
    try:
        yield process, out
    finally:
        process.kill()
        process.wait()


def test_no_row_of_a_killed_consumer_is_left_out(
    live: StoragePool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    write_logs(live, range(1, 1_001))
    with consuming(database_url, redis_url, tmp_path) as (process, out):
        wait_for(lambda: out.read_text().count("\n") > 150, process)
        process.kill()
        process.wait()
    handled = [*map(int, out.read_text().split("\n")[:-1])]
    others = of_group(live, claim_after=0.5, timeout=2)
    assert {*handled, *others} == set(range(1, 1_001))
    assert len(handled) + len(others) <= 1_100  # it repeats one entry
