"""Where a stream begins, how it resumes, and which gaps it tells."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import (
    CacheError,
    ConfigError,
    LogFilters,
    PoolError,
    StoragePool,
    StreamGap,
    ValidationError,
)
from observatory_storage.config import StreamsConfig
from tests.streams.conftest import OpenPool
from tests.streams.live import all_of, numbers_of, write_logs

Arguments = dict[str, Any]


def test_new_rows_are_returned_as_they_come(live: StoragePool) -> None:
    write_logs(live, [1])
    with live.stream("logs", timeout=20) as stream:
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.extend(numbers_of(islice(stream, 250))))
        reader.start()
        while reader.is_alive() and len(found) < 1:  # until it waits for entries
            write_logs(live, range(2, 102))
            reader.join(0.05)
        reader.join()
    assert len(found) == 250
    assert set(found) == set(range(2, 102))


def test_stream_resumes_after_the_row_of_an_id(live: StoragePool) -> None:
    write_logs(live, range(1, 251))
    with live.stream("logs", after="0", timeout=0.2) as stream:
        entries = list(stream)
    assert numbers_of(entries) == [*range(1, 251)]
    for place in (0, 98, 99, 100, 248, 249):
        with live.stream("logs", after=entries[place].id, timeout=0.2) as stream:
            assert numbers_of(stream) == [*range(place + 2, 251)]
            assert stream.gaps == 0


def test_stream_begins_when_it_is_opened(live: StoragePool) -> None:
    write_logs(live, [1])
    arguments: list[Arguments] = [{}, {"group": "g"}]
    streams = [live.stream("logs", timeout=0.2, **each) for each in arguments]
    write_logs(live, [2])
    for stream in streams:
        with stream:
            assert numbers_of(stream) == [2]


def test_entry_says_when_it_was_published(live: StoragePool) -> None:
    write_logs(live, [1])
    with live.stream("logs", after="0", timeout=0.2) as stream:
        (entry,) = stream
    assert abs(entry.published_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_filters_are_given_as_an_object_or_by_keyword(live: StoragePool) -> None:
    write_logs(live, [1], severity_number=9)
    write_logs(live, [2], severity_number=17)
    by_object = all_of(live, "logs", filters=LogFilters(min_severity="error"))
    assert [row.span_id for row in by_object] == [f"{2:016x}"]
    by_keyword = all_of(live, "logs", min_severity="error")
    assert [row.span_id for row in by_keyword] == [f"{2:016x}"]


def test_both_protocols_of_redis_are_read(open_pool: OpenPool, redis_url: str) -> None:
    separator = "&" if "?" in redis_url else "?"
    for protocol in (2, 3):
        pool = open_pool(f"{redis_url}{separator}protocol={protocol}")
        write_logs(pool, [protocol])
        assert len(all_of(pool, "logs")) == protocol - 1
        assert len(all_of(pool, "logs", group=f"g{protocol}")) == protocol - 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"after": "yesterday"}, "after"),
        ({"after": "1-1:2", "group": "g"}, "after"),
        ({"consumer": "c"}, "consumer"),
        ({"group": ""}, "group"),
        ({"timeout": -1}, "timeout"),
        ({"group": "g", "claim_after": 0}, "claim_after"),
        ({"min_severity": "loud"}, "min_severity"),
        ({"on_gap": 3}, "on_gap=3: must be callable"),
        ({"limit": 3}, "limit=3: does not apply to a stream"),
    ],
)
def test_wrong_arguments_are_named(live: StoragePool, arguments: Arguments, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        live.stream("logs", **arguments)


def test_closed_pool_has_no_stream(live: StoragePool) -> None:
    live.close()
    with pytest.raises(PoolError, match="the pool is closed"):
        live.stream("logs")


def test_unknown_signal_is_refused(live: StoragePool) -> None:
    with pytest.raises(ValidationError, match="signal='metrics': must be one of spans, traces"):
        live.stream("metrics")  # type: ignore[call-overload]  # what is tested


def test_stream_without_redis_is_a_wrong_configuration(pool: StoragePool) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url"):
        pool.stream("logs")


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"streams\.signals.*must have signals out of spans"):
        StreamsConfig(signals="logs,metrics")  # type: ignore[arg-type]  # as a variable says it


def test_key_of_another_kind_is_an_error(live: StoragePool, redis_url: str) -> None:
    write_logs(live, [1])
    with Redis.from_url(redis_url) as client:
        (key,) = client.scan_iter("*:stream:*")
        client.delete(key)
        client.set(key, "text")
    with pytest.raises(CacheError, match="the stream of logs cannot be read: WRONGTYPE"):
        all_of(live, "logs")


def test_entries_that_were_trimmed_are_told(live: StoragePool, redis_url: str) -> None:
    write_logs(live, range(1, 301))
    gaps: list[StreamGap] = []
    with live.stream("logs", after="0", timeout=0.2, on_gap=gaps.append) as stream:
        first = next(stream)
        with Redis.from_url(redis_url) as client:
            (key,) = client.scan_iter("*:stream:*")
            client.xtrim(key, 1, approximate=False)
        last = [*numbers_of(islice(stream, 299))][-1]
    assert (last, gaps) == (300, [])  # it had read them at once
    with live.stream("logs", after=first.id, timeout=0.2, on_gap=gaps.append) as stream:
        assert numbers_of(stream) == [*range(201, 301)]
    assert gaps == [StreamGap("missing", None)]


def test_reader_that_is_overtaken_by_trimming_is_told(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, max_entries=1)
    write_logs(pool, [1])
    with pool.stream("logs", after="0", timeout=0.2) as stream:
        assert numbers_of(islice(stream, 1)) == [1]
        for first in range(2, 402, 2):
            write_logs(pool, [first, first + 1])
        assert max(numbers_of(stream)) == 401
        assert stream.gaps == 1


def test_stream_goes_on_when_redis_comes_back_without_its_data(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey
) -> None:
    pool = open_pool(embedded_redis.url)
    write_logs(pool, [1])
    gaps: list[StreamGap] = []
    with pool.stream("logs", after="0", timeout=20, on_gap=gaps.append) as stream:
        assert numbers_of(islice(stream, 1)) == [1]
        write_logs(pool, [2])
        embedded_redis.kill()
        embedded_redis.start()
        write_logs(pool, [3])
        assert numbers_of(islice(stream, 1)) == [3]
    assert set(gaps) == {StreamGap("missing", None)}


def test_stream_goes_on_without_a_gap_when_redis_comes_back_with_its_data(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    with EmbeddedValkey(tmp_path / "redis") as server:
        pool = open_pool(server.url)
        write_logs(pool, [1])
        with pool.stream("logs", after="0", timeout=20) as stream:
            assert numbers_of(islice(stream, 1)) == [1]
            server.stop()
            server.start()
            write_logs(pool, [2])
            assert numbers_of(islice(stream, 1)) == [2]
            assert stream.gaps == 0


def test_stream_waits_for_a_redis_that_is_not_there_yet(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey
) -> None:
    embedded_redis.stop()
    pool = open_pool(embedded_redis.url)
    with pool.stream("logs", timeout=0.3) as stream:
        assert numbers_of(stream) == []
    with pool.stream("logs", after="0", timeout=20) as stream:
        starter = threading.Timer(0.3, embedded_redis.start)
        writer = threading.Timer(0.1, write_logs, (pool, [1]))
        starter.start()
        writer.start()
        assert numbers_of(islice(stream, 1)) == [1]
        writer.join()
        starter.join()


@pytest.mark.parametrize("group", [None, "g"])
def test_gap_is_told_if_redis_did_not_answer_when_the_stream_was_opened(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey, group: str | None
) -> None:
    embedded_redis.stop()
    pool = open_pool(embedded_redis.url)
    gaps: list[StreamGap] = []
    with pool.stream("logs", group=group, timeout=1, on_gap=gaps.append) as stream:
        embedded_redis.start()
        write_logs(pool, [1])
        assert numbers_of(stream) == []
    assert gaps == [StreamGap("missing", None)]
