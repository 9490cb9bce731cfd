"""What the settings of a project say, and what an error says of them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from observatory_storage import ConfigError, StoragePool
from observatory_storage.django import get_pool, get_trace_writer
from observatory_storage.django.app_settings import app_settings, storage_config


def use_entry(monkeypatch: pytest.MonkeyPatch, **entry: Any) -> None:
    whole = {"ENGINE": "django.db.backends.postgresql", "NAME": "app", "OPTIONS": {}, **entry}
    monkeypatch.setitem(connections.settings, "default", whole)


def test_the_store_shares_the_parameters_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "sslmode": "require",
        "connect_timeout": 3,
        "application_name": "web",
        "target_session_attrs": "read-write",
        "pool": True,
        "isolation_level": 4,
        "options": "-c lock_timeout=5s",
        "assume_role": "app owner",
    }
    use_entry(
        monkeypatch, HOST="db.internal", PORT=5433, USER="app", PASSWORD="pw:@/", OPTIONS=options
    )
    config = storage_config()
    postgres = config.postgres
    assert (postgres.host, postgres.port, postgres.database) == ("db.internal", 5433, "app")
    assert postgres.username == "app"
    assert postgres.url().password == "pw:@/"
    assert (postgres.ssl_mode, postgres.application_name) == ("require", "web")
    assert config.pool.connect_timeout_secs == 3
    assert postgres.parameters == {
        "options": "-c lock_timeout=5s -c role=app\\ owner",
        "target_session_attrs": "read-write",
    }


def test_what_the_database_leaves_out_is_as_libpq_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGUSER", "somebody")
    monkeypatch.setenv("PGPORT", "5444")
    use_entry(monkeypatch, HOST="", PORT="", USER="", PASSWORD="")
    postgres = storage_config().postgres
    assert (postgres.host, postgres.port, postgres.username) == ("elsewhere", 5444, "somebody")
    assert postgres.password is None


def test_the_entry_takes_precedence_over_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"host": "of-options", "user": "of-options"}
    use_entry(monkeypatch, HOST="of-entry", OPTIONS=options)
    postgres = storage_config().postgres
    assert (postgres.host, postgres.username) == ("of-entry", "of-options")


def test_neither_the_environment_nor_a_file_is_read(
    monkeypatch: pytest.MonkeyPatch, project: StoragePool
) -> None:
    monkeypatch.setenv("DB_SCHEMA", "elsewhere")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    config = storage_config()
    assert config == project.config
    assert config.redis.url is None


@override_settings(
    OBSERVATORY_SCHEMA=None,
    OBSERVATORY_DB_POOL_MAX_CONNECTIONS=7,
    OBSERVATORY_RETENTION_TRACES=timedelta(days=30),
    OBSERVATORY_DROP=[{"signal": "spans", "name": "GET /health"}],
    OBSERVATORY_MAINTENANCE_BACKGROUND=False,
)
@pytest.mark.usefixtures("project")
def test_settings_have_values_of_python() -> None:
    config = storage_config()
    assert config.postgres.schema == "observatory"
    assert config.pool.max_connections == 7
    assert config.retention.traces == timedelta(days=30)
    assert len(config.rules.drop) == 1


@override_settings(
    OBSERVATORY_SHCEMA="telemetry",
    OBSERVATORY_DB_POOL_MAX_CONNECTIONS="many",
    OBSERVATORY_DATABASE_URL=None,
)
@pytest.mark.usefixtures("project")
def test_an_error_names_each_wrong_setting() -> None:
    with pytest.raises(ConfigError) as error:
        storage_config()
    first, *lines = str(error.value).splitlines()
    assert first == "2 problems in the configuration:"
    assert [line.strip() for line in lines] == [
        "OBSERVATORY_SHCEMA: there is no such setting; did you mean OBSERVATORY_SCHEMA?",
        "OBSERVATORY_DB_POOL_MAX_CONNECTIONS = 'many': must be a whole number",
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"OPTIONS": {"sslmode": "perhaps"}},
            r"DATABASES\['default'\]\['OPTIONS'\]\['sslmode'\] = 'perhaps': must be 'disable'",
        ),
        ({"OPTIONS": {"service": "app"}}, r"OPTIONS has 'service', whose file .* set HOST"),
        ({"OPTIONS": {"colour": "red"}}, r"OPTIONS has 'colour', which libpq does not know"),
        ({"PORT": "high"}, r"DATABASES\['default'\]\['PORT'\] = 'high': must be a whole number"),
        ({"NAME": " "}, r"DATABASES\['default'\]\['NAME'\]: must not be empty"),
        (
            {"ENGINE": "django.db.backends.sqlite3"},
            r"DATABASES\['default'\]: its ENGINE is django.db.backends.sqlite3, and the store needs"
            r" PostgreSQL: set OBSERVATORY_DATABASE_ALIAS",
        ),
    ],
)
def test_an_error_names_what_is_wrong_with_the_database(
    entry: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_entry(monkeypatch, **{"PASSWORD": "hunter2", **entry})
    with pytest.raises(ConfigError, match=problem) as error:
        storage_config()
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DATABASE_ALIAS", 5, "OBSERVATORY_DATABASE_ALIAS = 5: must be a name"),
        ("RECORD_REQUESTS", "yes", "OBSERVATORY_RECORD_REQUESTS = 'yes': must be True or False"),
        ("PERMISSION", "no.such.function", "OBSERVATORY_PERMISSION = 'no.such.function': No mod"),
        ("PERMISSION", 5, "OBSERVATORY_PERMISSION = 5: must be a function of the request"),
        ("OTLP_TOKENS", ["tokén"], "OBSERVATORY_OTLP_TOKENS: token: must be one or more visible"),
        ("WRITERS", {"batch": 5}, "OBSERVATORY_WRITERS = {'batch': 5}: has no batch; there are"),
        ("WRITERS", {"batch_size": 0}, "batch_size=0: must be an integer from 1"),
        (
            "DB_HOST",
            "elsewhere",
            "OBSERVATORY_DB_HOST: must not be set, since DATABASES['default']",
        ),
        ("DATABASE_URL", "mysql://app", "OBSERVATORY_DATABASE_URL (its value is not shown): must"),
    ],
)
def test_an_error_names_the_setting_and_its_value(name: str, value: Any, problem: str) -> None:
    with (
        override_settings(**{f"OBSERVATORY_{name}": value}),
        pytest.raises(ConfigError, match=re.escape(problem)) as error,
    ):
        storage_config()
    assert "tokén" not in str(error.value)


@pytest.mark.parametrize("value", [None, ""])
def test_none_and_empty_texts_count_as_unset(value: str | None) -> None:
    before = app_settings()
    names = ("PERMISSION", "HEALTH_PERMISSION", "RECORD_REQUESTS", "SERVICE_NAME", "WRITERS")
    with override_settings(**{f"OBSERVATORY_{name}": value for name in names}):
        assert app_settings() == replace(before, record_requests=False)


def test_a_database_that_is_not_there_is_named() -> None:
    with (
        override_settings(OBSERVATORY_DATABASE_ALIAS="telemetry"),
        pytest.raises(ConfigError, match=r"DATABASES\['telemetry'\]: there is no such database"),
    ):
        storage_config()


@override_settings(
    OBSERVATORY_DATABASE_ALIAS="default", OBSERVATORY_DATABASE_URL="postgresql://localhost/app"
)
def test_an_alias_and_a_url_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="must not be set together with OBSERVATORY_DATABASE_URL"):
        app_settings()


def test_a_url_names_a_database_outside_of_django(database_url: str) -> None:
    with override_settings(OBSERVATORY_DATABASE_URL=database_url):
        assert get_pool().health_check().status == "healthy"


def test_the_pool_follows_settings_that_a_test_overrides(project: StoragePool) -> None:
    assert get_pool() is project
    writer = get_trace_writer()
    with override_settings(OBSERVATORY_SCHEMA="elsewhere"):
        other = get_pool()
        assert (other.schema, project.schema) == ("elsewhere", "public")
        assert get_trace_writer().source is other
    assert get_pool().schema == "public"
    assert get_trace_writer() is not writer


@pytest.mark.usefixtures("project")
def test_writers_of_a_project_drop_rather_than_let_requests_wait() -> None:
    assert app_settings().writers.on_full == "drop"
    with override_settings(OBSERVATORY_WRITERS={"on_full": "raise", "max_buffered": 5000}):
        writers = app_settings().writers
        assert (writers.on_full, writers.max_buffered) == ("raise", 5000)
