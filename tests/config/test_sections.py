"""The sections and their rules, with values from Python and from the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from observatory_storage.config import (
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
    StorageConfig,
    settings_of,
)
from tests.config.conftest import Environment, problems


def value_at(config: BaseModel, key: tuple[str, ...]) -> Any:
    """The value of a setting, by its key."""
    found: Any = config.model_dump()
    for part in key:
        found = found[part]
    return found.get_secret_value() if isinstance(found, SecretStr) else found


def test_defaults() -> None:
    config = StorageConfig.from_env()
    assert config == StorageConfig()
    assert (config.postgres.host, config.postgres.port) == ("localhost", 5432)
    assert (config.postgres.database, config.postgres.username) == ("llm_observatory", "postgres")
    assert config.postgres.ssl_mode == "prefer"
    assert config.postgres.password is None
    assert config.postgres.schema_name == "public"
    assert config.postgres.statement_timeout_ms == 0
    assert config.redis.url is None
    pool, retry = config.pool, config.retry
    assert (pool.max_connections, pool.min_connections) == (50, 5)
    assert (pool.connect_timeout_secs, pool.idle_timeout_secs) == (10, 300)
    assert pool.max_lifetime_secs == 1800
    assert (retry.max_attempts, retry.initial_delay_ms) == (3, 100)
    assert (retry.max_delay_ms, retry.backoff_multiplier) == (5000, 2.0)


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("DB_HOST", "db.internal", ("postgres", "host"), "db.internal"),
        ("DB_HOST", "::1", ("postgres", "host"), "::1"),
        ("DB_HOST", "[fe80::1]", ("postgres", "host"), "fe80::1"),
        ("DB_HOST", "/run/postgresql", ("postgres", "host"), "/run/postgresql"),
        ("DB_HOST", "h1:5433,[::1]:5434,h3", ("postgres", "host"), "h1:5433,[::1]:5434,h3"),
        ("DB_PORT", " 6432\r", ("postgres", "port"), 6432),
        ("DB_NAME", "my db", ("postgres", "database"), "my db"),
        ("DB_USER", "üser", ("postgres", "username"), "üser"),
        ("DB_PASSWORD", " p@:/% ", ("postgres", "password"), " p@:/% "),
        ("DB_SSL_MODE", "disable", ("postgres", "ssl_mode"), "disable"),
        ("DB_SSL_MODE", "allow", ("postgres", "ssl_mode"), "allow"),
        ("DB_SSL_MODE", "prefer", ("postgres", "ssl_mode"), "prefer"),
        ("DB_SSL_MODE", "require", ("postgres", "ssl_mode"), "require"),
        ("DB_APP_NAME", "chat", ("postgres", "application_name"), "chat"),
        ("DB_SCHEMA", "Tenant-1", ("postgres", "schema"), "Tenant-1"),
        ("DB_STATEMENT_TIMEOUT_MS", "30000", ("postgres", "statement_timeout_ms"), 30000),
        ("REDIS_URL", "redis://r:6379/1", ("redis", "url"), "redis://r:6379/1"),
        ("REDIS_POOL_SIZE", "3", ("redis", "pool_size"), 3),
        ("REDIS_TIMEOUT_SECS", "0.5", ("redis", "timeout_secs"), 0.5),
        ("DB_POOL_MAX_CONNECTIONS", "60", ("pool", "max_connections"), 60),
        ("DB_MAX_CONNECTIONS", "60", ("pool", "max_connections"), 60),
        ("DB_POOL_MIN_CONNECTIONS", "0", ("pool", "min_connections"), 0),
        ("DB_MIN_CONNECTIONS", "6", ("pool", "min_connections"), 6),
        ("DB_POOL_ACQUIRE_TIMEOUT", "1.5", ("pool", "acquire_timeout_secs"), 1.5),
        ("DB_POOL_CONNECT_TIMEOUT", "3", ("pool", "connect_timeout_secs"), 3),
        ("DB_POOL_IDLE_TIMEOUT", "0.25", ("pool", "idle_timeout_secs"), 0.25),
        ("DB_POOL_MAX_LIFETIME", "60", ("pool", "max_lifetime_secs"), 60),
        ("DB_RETRY_MAX_ATTEMPTS", "1", ("retry", "max_attempts"), 1),
        ("DB_RETRY_INITIAL_DELAY_MS", "5000", ("retry", "initial_delay_ms"), 5000),
        ("DB_RETRY_MAX_DELAY_MS", "100", ("retry", "max_delay_ms"), 100),
        ("DB_RETRY_BACKOFF_MULTIPLIER", "1.5", ("retry", "backoff_multiplier"), 1.5),
    ],
)
def test_each_variable_sets_its_field(
    environment: Environment, variable: str, text: str, key: tuple[str, ...], value: object
) -> None:
    environment(**{variable: text})
    config = StorageConfig.from_env()
    assert value_at(config, key) == value
    assert variable in settings_of(StorageConfig)[key].variables
    others = settings_of(StorageConfig).keys() - {key, ("postgres",)}
    assert all(value_at(config, k) == value_at(StorageConfig(), k) for k in others)


@pytest.mark.parametrize(
    ("variable", "text", "rule"),
    [
        ("DB_PORT", "0", "greater than or equal to 1"),
        ("DB_PORT", "65536", "less than or equal to 65535"),
        ("DB_PORT", "http", "whole number"),
        ("DB_PORT", "54.5", "whole number"),
        ("DB_HOST", "db:5432", "port"),
        ("DB_HOST", "a b", "host name"),
        ("DB_HOST", "user@db", "host name"),
        ("DB_HOST", "h1,,h2", "empty host"),
        ("DB_HOST", "h1:0,h2:5432", "1 to 65535"),
        ("DB_HOST", "[nonsense]", "IPv6"),
        ("DB_HOST", "1:2:3", "brackets"),
        ("DB_NAME", "a\tb", "control characters"),
        ("DB_USER", "a\x7f", "control characters"),
        ("DB_SSL_MODE", "on", "'verify-full'"),
        ("DB_SSL_CERT", "missing.crt", "file that exists"),
        ("DB_SSL_ROOT_CERT", "missing.crt", "file that exists"),
        ("DB_SSL_KEY", "missing.key", "file that exists"),
        ("DB_APP_NAME", "x" * 64, "63 ASCII"),
        ("DB_APP_NAME", "naïve", "63 ASCII"),
        ("DB_SCHEMA", "pg_mine", "PostgreSQL's own"),
        ("DB_SCHEMA", "information_schema", "PostgreSQL's own"),
        ("DB_SCHEMA", "ü" * 32, "63 bytes"),
        ("DB_STATEMENT_TIMEOUT_MS", "-1", "greater than or equal to 0"),
        ("DB_STATEMENT_TIMEOUT_MS", "2147483648", "2147483647"),
        ("REDIS_POOL_SIZE", "0", "greater than or equal to 1"),
        ("REDIS_TIMEOUT_SECS", "0", "greater than 0"),
        ("REDIS_TIMEOUT_SECS", "inf", "finite"),
        ("DB_POOL_MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("DB_MAX_CONNECTIONS", "many", "whole number"),
        ("DB_POOL_MIN_CONNECTIONS", "-1", "greater than or equal to 0"),
        ("DB_POOL_MIN_CONNECTIONS", "51", "above max_connections, 50"),
        ("DB_POOL_ACQUIRE_TIMEOUT", "0", "greater than 0"),
        ("DB_POOL_CONNECT_TIMEOUT", "0", "greater than or equal to 1"),
        ("DB_POOL_CONNECT_TIMEOUT", "1.5", "whole number"),
        ("DB_POOL_IDLE_TIMEOUT", "nan", "must be"),
        ("DB_POOL_MAX_LIFETIME", "-1", "greater than 0"),
        ("DB_RETRY_MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("DB_RETRY_INITIAL_DELAY_MS", "0", "greater than or equal to 1"),
        ("DB_RETRY_MAX_DELAY_MS", "99", "below initial_delay_ms, 100"),
        ("DB_RETRY_BACKOFF_MULTIPLIER", "1", "greater than 1"),
        ("DB_RETRY_BACKOFF_MULTIPLIER", "two", "a number"),
    ],
)
def test_error_names_the_variable_its_value_and_the_rule(
    environment: Environment, variable: str, text: str, rule: str
) -> None:
    environment(**{variable: text})
    message = problems(StorageConfig.from_env)
    assert f"{variable} = {text!r}" in message or repr(text[:50]) in message
    assert rule in message


def test_every_problem_is_listed(environment: Environment) -> None:
    environment(DB_PORT="0", DB_SSL_MODE="on", REDIS_POOL_SIZE="x", DB_RETRY_MAX_ATTEMPTS="0")
    environment(DB_MAX_CONNECTIONS="1", DB_POOL_MAX_CONNECTIONS="2", DATABASE_URL="mysql://h/d")
    message = problems(StorageConfig.from_env)
    assert message.startswith("6 problems")
    for name in ("DB_PORT", "DB_SSL_MODE", "REDIS_POOL_SIZE", "DB_RETRY_MAX_ATTEMPTS"):
        assert f"\n  {name} = " in message
    assert "DB_POOL_MAX_CONNECTIONS = '2' and DB_MAX_CONNECTIONS = '1'" in message
    assert "DATABASE_URL" in message


@pytest.mark.parametrize("end", ["MAX", "MIN"])
def test_short_and_long_names_of_a_setting_must_agree(environment: Environment, end: str) -> None:
    environment(**{f"DB_POOL_{end}_CONNECTIONS": "7", f"DB_{end}_CONNECTIONS": "7 "})
    assert getattr(StorageConfig.from_env().pool, f"{end.lower()}_connections") == 7
    environment(**{f"DB_{end}_CONNECTIONS": "8"})
    message = problems(StorageConfig.from_env)
    assert f"DB_POOL_{end}_CONNECTIONS = '7' and DB_{end}_CONNECTIONS = '8'" in message
    environment(**{f"DB_{end}_CONNECTIONS": ""})
    assert getattr(StorageConfig.from_env().pool, f"{end.lower()}_connections") == 7


def test_an_error_between_two_settings_names_both_origins(environment: Environment) -> None:
    environment(DB_MAX_CONNECTIONS="3", DB_POOL_MIN_CONNECTIONS="4")
    message = problems(StorageConfig.from_env)
    assert message == (
        "DB_POOL_MIN_CONNECTIONS = '4': must not be above max_connections, 3 (DB_MAX_CONNECTIONS)"
    )
    environment(DB_POOL_MIN_CONNECTIONS="", DB_RETRY_INITIAL_DELAY_MS="6000")
    message = problems(StorageConfig.from_env)
    assert "variable DB_RETRY_MAX_DELAY_MS" in message
    assert "6000 (DB_RETRY_INITIAL_DELAY_MS)" in message


def test_a_lower_maximum_lowers_the_default_minimum() -> None:
    assert PoolConfig(max_connections=2).min_connections == 2
    assert PoolConfig(max_connections=200).min_connections == 5


@pytest.mark.parametrize(
    "variable", [v for s in settings_of(StorageConfig).values() for v in s.variables]
)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_not_set(environment: Environment, variable: str, empty: str) -> None:
    Path(".env").write_text("DB_HOST=from-dotenv\n")
    environment(**{variable: empty})
    assert StorageConfig.from_env() == StorageConfig(postgres=PostgresConfig(host="from-dotenv"))


def test_names_of_variables_are_case_sensitive(environment: Environment) -> None:
    environment(db_host="lower-case")
    assert StorageConfig.from_env() == StorageConfig()


def test_the_environment_beats_dotenv(environment: Environment) -> None:
    Path(".env").write_text(
        "# local\n\nDB_HOST=dotenv\nexport DB_NAME='from dotenv'\n"
        "DB_POOL_MAX_CONNECTIONS=9\nOTHER=1\n"
    )
    environment(DB_HOST="environment", DB_MAX_CONNECTIONS="8")
    config = StorageConfig.from_env()
    assert config.postgres.host == "environment"
    assert config.postgres.database == "from dotenv"
    assert config.pool.max_connections == 8


def test_dotenv_is_read_from_the_current_directory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("DB_HOST=above\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert StorageConfig.from_env().postgres.host == "localhost"


def test_an_error_in_dotenv_names_it() -> None:
    Path(".env").write_text("DB_PORT=x\nDB_MAX_CONNECTIONS=1\nDB_POOL_MAX_CONNECTIONS=2\n")
    message = problems(StorageConfig.from_env)
    assert "  .env: DB_PORT = 'x': must be a whole number" in message
    assert ".env: DB_POOL_MAX_CONNECTIONS = '2' and .env: DB_MAX_CONNECTIONS = '1'" in message


def test_dotenv_that_is_not_a_text_file(tmp_path: Path) -> None:
    Path(".env").mkdir()
    assert StorageConfig.from_env() == StorageConfig()
    Path(".env").rmdir()
    Path(".env").write_bytes(b"\xef\xbb\xbfDB_HOST=with-mark\r\n")
    assert StorageConfig.from_env().postgres.host == "with-mark"
    Path(".env").write_bytes(b"DB_PASSWORD=\xff\xfe")
    assert problems(StorageConfig.from_env) == ".env: must be UTF-8 text"


def test_building_in_python_reads_no_environment(environment: Environment) -> None:
    environment(DB_HOST="environment", DATABASE_URL="postgresql://environment", REDIS_URL="bad")
    Path(".env").write_text("DB_PORT=1\n")
    config = StorageConfig(postgres=PostgresConfig(database="mine"), pool=PoolConfig())
    assert config == StorageConfig(postgres=PostgresConfig(database="mine"))
    assert config.postgres.host == "localhost"
    assert StorageConfig().redis.url is None


def test_building_in_python_takes_attribute_and_file_names() -> None:
    named: dict[str, Any] = {"schema_name": "a"}
    assert PostgresConfig(schema="a") == PostgresConfig(**named)
    groups: dict[str, Any] = {"postgres": {"schema": "a", "password": "b"}, "retry": {}}
    config = StorageConfig(**groups)
    assert config.postgres.schema_name == "a"
    assert config.model_dump()["postgres"]["schema"] == "a"


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        (PostgresConfig, {"port": 0}, ["postgres.port = 0: "]),
        (PostgresConfig, {"database": ""}, ["postgres.database = '': must not be empty"]),
        (PostgresConfig, {"host": " "}, ["postgres.host = ' ': must not be empty"]),
        (PostgresConfig, {"username": "\0"}, ["postgres.username", "control"]),
        (PostgresConfig, {"schema": "a\0"}, ["postgres.schema", "control"]),
        (PostgresConfig, {"database": 5}, ["postgres.database = 5: must be text"]),
        (PostgresConfig, {"host": "postgresql://h"}, ["postgres.host: ", "from_url"]),
        (PostgresConfig, {"parameters": {"hots": "x"}}, ["'host'"]),
        (PostgresConfig, {"parameters": {"sslmode": "x"}}, ["set postgres.ssl_mode instead"]),
        (PostgresConfig, {"parameters": {"options": ["x"]}}, ["text or a whole number"]),
        (PostgresConfig, {"parameters": "options"}, ["group"]),
        (PoolConfig, {"max_connections": 1, "min_connections": 2}, ["pool.min_connections = 2"]),
        (PoolConfig, {"max_connections": True}, ["pool.max_connections = True", "a number"]),
        (PoolConfig, {"idle_timeout_secs": True}, ["pool.idle_timeout_secs = True"]),
        (RetryConfig, {"initial_delay_ms": 9, "max_delay_ms": 8}, ["retry.max_delay_ms = 8"]),
        (RetryConfig, {"backoff_multiplier": 1}, ["retry.backoff_multiplier = 1"]),
        (RedisConfig, {"uri": "x"}, ["redis.uri: unknown key; did you mean 'url'?"]),
        (StorageConfig, {"pol": {}}, ["pol: unknown key; did you mean 'pool'?"]),
        (StorageConfig, {"zzz": 1}, ["zzz", "pool, postgres, pricing, redis, retention, retry"]),
        (StorageConfig, {"postgres": "postgresql://h"}, ["postgres", "from_url"]),
        (StorageConfig, {"pool": 5}, ["pool", "a group of keys"]),
        (
            StorageConfig,
            {"postgres": {"port": 0, "hots": 1}, "pool": {"max_connections": 0}},
            ["3 problems", "postgres.port", "postgres.hots", "'host'", "pool.max_connections"],
        ),
    ],
)
def test_errors_of_values_passed_in_python(
    model: Callable[..., object], values: dict[str, object], expected: list[str]
) -> None:
    message = problems(lambda: model(**values))
    for text in expected:
        assert text in message


def test_further_parameters() -> None:
    values: dict[str, Any] = {"keepalives_idle": 30, "sslpassword": "hidden"}
    config = PostgresConfig(parameters=values)
    assert config.url().query["keepalives_idle"] == "30"
    assert "sslpassword" not in config.url().query
    assert config.connect_args() == {"sslpassword": "hidden"}
