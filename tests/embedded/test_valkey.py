"""An embedded Valkey."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis

from observatory_embedded import (
    EmbeddedServerError,
    EmbeddedValkey,
    embedded_valkey,
)


def test_server_answers_and_its_folder_is_gone_after_the_block() -> None:
    with embedded_valkey() as url:
        with redis.Redis.from_url(url) as client:
            assert client.set("key", "value")
            assert client.config_get("port") == {"port": "0"}
        path = Path(url.removeprefix("unix://").partition("?")[0])
        assert path.exists()
    assert not path.parent.exists()


def test_data_survive_a_restart(folder: Path) -> None:
    with embedded_valkey(folder / "data") as url, redis.Redis.from_url(url) as client:
        client.set("key", "value")
    with embedded_valkey(folder / "data") as url, redis.Redis.from_url(url) as client:
        assert client.get("key") == b"value"


def test_error_names_the_process_that_uses_the_folder(folder: Path) -> None:
    with EmbeddedValkey(folder), pytest.raises(EmbeddedServerError, match=str(os.getpid())):
        EmbeddedValkey(folder)


def test_server_is_killed_and_starts_again(embedded_redis: EmbeddedValkey) -> None:
    with redis.Redis.from_url(embedded_redis.url) as client:
        assert client.ping()
        embedded_redis.kill()
        assert not embedded_redis.running
        with pytest.raises(redis.ConnectionError):
            client.ping()
        embedded_redis.start()
        assert client.ping()
        embedded_redis.stop()
        assert not embedded_redis.running
