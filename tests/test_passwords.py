"""Passwords that expire are asked for at each connection."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.config import PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.errors import ConfigError, ConnectionLost
from observatory_storage.pool import StoragePool
from tests.servers import Server

ONCE = RetryConfig(max_attempts=1)


@pytest.fixture
def any_password_url(postgres_server: Server, request: pytest.FixtureRequest) -> str:
    """The URL of a server that takes any password."""
    if postgres_server.embedded:
        return postgres_server.url
    server: EmbeddedPostgres = request.getfixturevalue("embedded_server")
    return server.url


def password_in_use(pool: StoragePool) -> str:
    """The password that libpq was given for a new connection."""
    pool.engine.dispose()
    with pool.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return driver.info.password


def test_a_function_is_asked_for_the_password_at_each_connection(any_password_url: str) -> None:
    tokens = iter(["first", "second", "third"])
    postgres = PostgresConfig.from_url(any_password_url, password=lambda: next(tokens))
    with StoragePool(StorageConfig(postgres=postgres), connect=False) as pool:
        assert [password_in_use(pool), password_in_use(pool)] == ["first", "second"]


def test_a_file_is_read_for_the_password_at_each_connection(
    any_password_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    postgres = PostgresConfig.from_url(any_password_url, password_file=secret)
    with StoragePool(StorageConfig(postgres=postgres), connect=False) as pool:
        assert password_in_use(pool) == "first"
        secret.write_text("second")
        assert password_in_use(pool) == "second"


def test_the_environment_names_the_file(
    any_password_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text("from a file")
    monkeypatch.setenv("DATABASE_URL", any_password_url)
    monkeypatch.setenv("DB_PASSWORD_FILE", str(secret))
    with StoragePool.from_env(connect=False) as pool:
        assert password_in_use(pool) == "from a file"


def test_a_password_and_a_file_are_refused_together(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("secret")
    with pytest.raises(ConfigError, match=r"password_file.*must not come together"):
        PostgresConfig(password="also", password_file=secret)  # type: ignore[arg-type]  # as users do


def test_a_file_that_is_gone_is_named(any_password_url: str, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("secret")
    postgres = PostgresConfig.from_url(any_password_url, password_file=secret)
    secret.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        StoragePool(StorageConfig(postgres=postgres, retry=ONCE))


def test_a_function_that_fails_raises_its_own_error(any_password_url: str) -> None:
    def no_token() -> str:
        raise LookupError("the metadata service is away")

    postgres = PostgresConfig.from_url(any_password_url, password=no_token)
    with pytest.raises(LookupError, match="metadata service"):
        StoragePool(StorageConfig(postgres=postgres, retry=ONCE))


def test_a_function_must_give_text(any_password_url: str) -> None:
    postgres = PostgresConfig.from_url(any_password_url, password=lambda: 7)
    with pytest.raises(ConfigError, match="must give text, not int"):
        StoragePool(StorageConfig(postgres=postgres, retry=ONCE))


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    assert "hunter2" not in repr(PostgresConfig(password_file=secret))
    with pytest.raises(ConnectionLost) as caught:
        StoragePool(
            StorageConfig(
                postgres=PostgresConfig(host=str(tmp_path), password_file=secret), retry=ONCE
            )
        )
    assert "hunter2" not in str(caught.value)
