"""Servers that cannot be used count as failed, and a closed cache leaves nothing at Redis."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import CopyWriter, StoragePool
from observatory_storage.cache.client import CacheClient, Refused
from tests.cache.conftest import config_with
from tests.cache.reading import names, some_spans


def test_a_host_name_that_cannot_be_encoded_is_a_failure(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_with(database_url, f"redis://{'h' * 70}.example:6379/0")
    with StoragePool(config) as pool, caplog.at_level(logging.ERROR):
        for _ in range(4):
            CopyWriter(pool).write_spans(some_spans())
            assert len(names(pool)) == 3
        assert pool.cache.stats().is_open
        assert pool.cache.stats().is_behind
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("fault", ["database", "password", "access list"])
def test_a_server_that_refuses_connections_is_not_asked_for_a_while(
    database_url: str, embedded_redis: EmbeddedValkey, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    url = embedded_redis.url
    with redis.Redis.from_url(url) as client:
        if fault == "database":
            url = url.replace("db=0", "db=4000")
        elif fault == "password":
            client.config_set("requirepass", "secret")
        else:
            client.execute_command("ACL", "SETUSER", "default", "-time")
        with StoragePool(config_with(database_url, url)) as pool:
            for _ in range(4):
                assert names_or_none(pool) == []
            assert pool.cache.stats().is_open
            assert pool.cache.stats().kinds["traces"].refused == 0
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "Redis failed, and is not asked for a while" in warnings[0]


def names_or_none(pool: StoragePool) -> list[str]:
    """The names of the spans of a trace that was never written."""
    with pytest.raises(LookupError):
        names(pool)
    return []


def test_a_connection_in_use_is_closed_after_the_cache(redis_url: str) -> None:
    client = CacheClient(redis_url, timeout_secs=30)
    with redis.Redis.from_url(redis_url, client_name="watching") as watching:
        client.run([("CLIENT", "SETNAME", "cache-in-use")])
        thread = threading.Thread(target=client.run, args=([("BLPOP", "never", 20)],))
        thread.start()

        def blocked() -> list[str]:
            listed = [one for one in watching.client_list() if one["name"] == "cache-in-use"]
            return [one["id"] for one in listed if "b" in one["flags"]]

        deadline = time.monotonic() + 60
        while not blocked():
            assert time.monotonic() < deadline
        client.close()
        assert blocked()
        watching.client_unblock(int(blocked()[0]))
        thread.join()
        while any(one["name"] == "cache-in-use" for one in watching.client_list()):
            assert time.monotonic() < deadline


def test_an_error_of_a_command_is_a_refusal(redis_url: str) -> None:
    client = CacheClient(redis_url, timeout_secs=30)
    with pytest.raises(Refused):
        client.run([("NO-SUCH-COMMAND",)])
    assert not client.breaker.is_open
    client.close()
