"""No error, traceback, log, dump or repr shows a secret."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import observatory_storage.config
from observatory_storage.config import PostgresConfig, RedisConfig, StorageConfig
from observatory_storage.config.urls import libpq_parameters
from observatory_storage.errors import ConfigError
from tests.config.conftest import Environment

SECRET = "hunter2"
PACKAGE = str(Path(observatory_storage.config.__file__).parent)


def everything_shown(error: BaseException) -> str:
    """The error, its causes and contexts, and the local variables of the frames of the package.

    Frames of callers are omitted, since the caller is responsible for its own variables.
    """
    shown = [str(error), repr(error), repr(error.__dict__)]
    shown += traceback.format_exception(error)
    behind: BaseException | None = error
    while behind is not None:
        summary = traceback.TracebackException.from_exception(behind, capture_locals=True)
        for frame in summary.stack:
            if frame.filename.startswith(PACKAGE):
                shown.append(f"{frame.name}: {frame.locals}")
        shown.append(repr(behind.args))
        behind = behind.__cause__ or behind.__context__
    return "\n".join(shown)


@pytest.fixture
def refused() -> Callable[[Callable[[], object]], str]:
    def check(build: Callable[[], object]) -> str:
        with pytest.raises(ConfigError) as caught:
            build()
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        assert SECRET not in everything_shown(error)
        return str(error)

    return check


Refused = Callable[[Callable[[], object]], str]


@pytest.mark.parametrize(
    "variables",
    [
        {"DB_PASSWORD": SECRET, "DB_PORT": "0"},
        {"DB_PASSWORD": SECRET, "DB_MAX_CONNECTIONS": "1", "DB_POOL_MAX_CONNECTIONS": "2"},
        {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d?sslmode=on"},
        {"DATABASE_URL": f"postgresql://u:{SECRET}@h:0/d"},
        {"DATABASE_URL": f"postgresql://u:p@{SECRET}@h/d"},
        {"DATABASE_URL": f"postgresql://u:p/{SECRET}@h/d"},
        {"DATABASE_URL": f"postgresql://u:p/?{SECRET}=1@h/d"},
        {"DATABASE_URL": f"postgresql://u:%zz{SECRET}@h/d"},
        {"DATABASE_URL": f"postgresql://u:%ff{SECRET}@h/d"},
        {"DATABASE_URL": f"postgresql://u:{SECRET}"},
        {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d?nonsense=1&sslpassword={SECRET}"},
        {"DATABASE_URL": f"mysql://u:{SECRET}@h/d"},
        {"DATABASE_URL": f"u:{SECRET}@h/d"},
        {"DB_HOST": f"postgresql://u:{SECRET}@h/d"},
        {"DB_NAME": f"postgresql://u:{SECRET}@h/d"},
        {"REDIS_URL": f"http://:{SECRET}@h"},
        {"REDIS_URL": f"redis://:{SECRET}@@h"},
        {"REDIS_URL": f"redis://:[{SECRET}]@h"},
        {"REDIS_URL": f"redis://:\u2100{SECRET}@h"},
        {"REDIS_URL": f"redis://h:{SECRET}"},
        {"REDIS_URL": f"redis://:{SECRET}@h", "REDIS_POOL_SIZE": "0"},
    ],
)
@pytest.mark.parametrize("place", ["environment", "dotenv"])
def test_errors_of_variables_show_no_secret(
    environment: Environment, refused: Refused, variables: dict[str, str], place: str
) -> None:
    if place == "environment":
        environment(**variables)
    else:
        lines = (f"{name}='{value}'\n" for name, value in variables.items())
        Path(".env").write_text("".join(lines), encoding="utf-8")
    refused(StorageConfig.from_env)


@pytest.mark.parametrize(
    "text",
    [
        f"postgres: {{password: {SECRET}, port: 0}}",
        f"postgres: {{pasword: {SECRET}}}",
        f"postgres: {{password: [{SECRET}]}}",
        f"postgres: {{password: {{a: {SECRET}}}}}",
        f"postgres: {{host: {{password: {SECRET}}}}}",
        f"postgres: {{port: postgresql://u:{SECRET}@h}}",
        f"postgres: {{x: 1, password:{SECRET}}}",
        f"postgres: {{password: *{SECRET}}}",
        f"postgres: {{password: !{SECRET} x}}",
        f"postgres: {{password: @{SECRET}}}",
        f'postgres: {{password: "{SECRET}}}',
        f'postgres: {{password: "{SECRET}\\0"}}',
        f"postgres: postgresql://u:{SECRET}@h/d",
        f"postgres: {{parameters: {{sslpassword: [{SECRET}]}}}}",
        f"postgres: {{parameters: {{sslpasswort: {SECRET}}}}}",
        f"postgres: {{parameters: {SECRET}}}",
        f"redis: {{url: {SECRET}}}",
        f"redis: {{uri: {SECRET}}}",
        f"password: {SECRET}",
        f"{SECRET}",
    ],
)
def test_errors_of_yaml_show_no_secret(refused: Refused, text: str) -> None:
    Path("a.yaml").write_text(text)
    refused(lambda: StorageConfig.from_file("a.yaml"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", f"[postgres]\npassword = {SECRET}"),
        ("a.toml", f'[postgres]\npassword = "{SECRET}\nport = 1'),
        ("a.json", f'{{"postgres": {{"password": {SECRET}}}}}'),
        ("a.json", f'{{"postgres": {{"password": "{SECRET}"'),
        ("a.json", f'{{"postgres": {{"password": "{SECRET}", "password": "{SECRET}"}}}}'),
        ("a.ini", SECRET),
    ],
)
def test_errors_of_toml_and_json_show_no_secret(refused: Refused, name: str, text: str) -> None:
    Path(name).write_text(text)
    refused(lambda: StorageConfig.from_file(name))


def test_errors_of_files_that_are_not_text_show_no_secret(refused: Refused) -> None:
    Path("a.json").write_bytes(b'{"password": "\xff%s"}' % SECRET.encode())
    refused(lambda: StorageConfig.from_file("a.json"))
    Path(".env").write_bytes(b"DB_PASSWORD=\xff%s" % SECRET.encode())
    refused(StorageConfig.from_env)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (PostgresConfig, {"password": SECRET, "port": 0}),
        (PostgresConfig, {"password": SecretStr(SECRET), "port": 0}),
        (PostgresConfig, {"password": [SECRET]}),
        (PostgresConfig, {"password": SECRET + "\0"}),
        (PostgresConfig, {"pasword": SECRET}),
        (PostgresConfig, {"parameters": {"sslpassword": [SECRET]}}),
        (RedisConfig, {"url": SECRET}),
        (StorageConfig, {"postgres": {"password": SECRET, "port": 0}}),
        (StorageConfig, {"postgres": SECRET}),
        (StorageConfig, {"password": SECRET}),
        (PostgresConfig.from_url, {"url": f"postgresql://u:{SECRET}@h:0/d"}),
        (PostgresConfig.from_url, {"url": f"postgresql://u:{SECRET}@h/d?x=1"}),
        (PostgresConfig.from_url, {"url": f"postgresql://u:{SECRET}%@h/d"}),
        (PostgresConfig.from_url, {"url": f"postgresql://h?password={SECRET}&connect_timeout=1"}),
        (PostgresConfig.from_url, {"url": "postgresql://h", "password": SECRET, "port": 0}),
        (PostgresConfig.from_url, {"url": "postgresql://h?x=1", "password": SECRET}),
    ],
)
def test_errors_of_values_passed_in_python_show_no_secret(
    refused: Refused, model: Callable[..., object], values: dict[str, Any]
) -> None:
    refused(lambda: model(**values))


# The second one is there since libpq 18.
PARAMETERS = {"sslpassword", "scram_client_key"} & libpq_parameters().keys()


@pytest.fixture
def config() -> StorageConfig:
    parameters = "&".join(f"{name}={SECRET}" for name in PARAMETERS)
    return StorageConfig(
        postgres=PostgresConfig.from_url(f"postgresql://u:{SECRET}@h/d?{parameters}"),
        redis=RedisConfig(url=SecretStr(f"redis://:{SECRET}@h")),
    )


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        StorageConfig.model_dump_json,
        lambda config: repr(config.model_dump()),
        lambda config: repr(config.model_dump(mode="json")),
        lambda config: repr(vars(config.postgres)) + repr(dict(config.postgres)),
        lambda config: repr(config.postgres.url()) + str(config.postgres.url()),
        lambda config: repr(config.postgres) + repr(config.redis),
    ],
)
def test_repr_and_dumps_show_no_secret(
    config: StorageConfig, show: Callable[[StorageConfig], str]
) -> None:
    text = show(config)
    assert SECRET not in text
    assert len(text) > 20


def test_secrets_can_be_read_explicitly(config: StorageConfig) -> None:
    assert config.postgres.url().password == SECRET
    assert config.postgres.connect_args() == dict.fromkeys(PARAMETERS, SECRET)
    assert config.redis.url is not None
    assert config.redis.url.get_secret_value() == f"redis://:{SECRET}@h"
    # A pickled configuration is complete.
    assert pickle.loads(pickle.dumps(config)) == config


def test_an_assignment_is_refused_without_quoting_it(config: StorageConfig) -> None:
    with pytest.raises(ValueError, match="frozen") as caught:
        config.postgres.password = SecretStr(SECRET)
    assert SECRET not in str(caught.value)


def test_nothing_is_logged(
    environment: Environment,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With this variable, pydantic-settings logs the values of every source.
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    environment(DB_PASSWORD=SECRET, DATABASE_URL=f"postgresql://u:{SECRET}@h?sslpassword={SECRET}")
    Path(".env").write_text(f"REDIS_URL=redis://:{SECRET}@h\n")
    Path("a.yaml").write_text(
        f"postgres: {{password: {SECRET}, parameters: {{sslpassword: {SECRET}}}}}"
    )
    StorageConfig.from_file("a.yaml")
    Path("a.yaml").write_text(f"postgres: {{pasword: {SECRET}, password: [{SECRET}]}}")
    with pytest.raises(ConfigError):
        StorageConfig.from_file("a.yaml")
    assert SECRET not in caplog.text
