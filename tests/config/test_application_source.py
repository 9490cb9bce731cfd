"""The settings of an application of a web framework: its names, its types, and its errors."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from observatory_storage import StorageConfig
from observatory_storage.config import settings_of
from observatory_storage.config.application_source import (
    application_settings,
    sources_of_application,
)
from tests.config.conftest import Environment, problems

OWN = ["OBSERVATORY_RECORD_REQUESTS"]
URL = "postgresql://app:s3cret@db.internal:6543/shop?sslmode=require"


def config(**settings: Any) -> StorageConfig:
    sources = sources_of_application(StorageConfig, settings, OWN, where="app.config: ")
    return StorageConfig._from(*sources)


def test_every_setting_with_a_variable_has_names_of_its_own() -> None:
    names = application_settings(StorageConfig)
    assert names["OBSERVATORY_DATABASE_URL"] == ("postgres",)
    assert names["OBSERVATORY_RETENTION_TRACES"] == ("retention", "traces")
    assert names["OBSERVATORY_SCHEMA"] == names["OBSERVATORY_DB_SCHEMA"] == ("postgres", "schema")
    with_variables = [
        key for key, setting in settings_of(StorageConfig).items() if setting.variables
    ]
    assert set(names.values()) == set(with_variables)
    variables = [
        name for key in with_variables for name in settings_of(StorageConfig)[key].variables
    ]
    assert len(names) == len(variables) + 1  # the schema has a short name too


def test_values_of_python_and_texts_mean_the_same() -> None:
    values = config(
        OBSERVATORY_DATABASE_URL=SecretStr(URL),
        OBSERVATORY_DB_POOL_MAX_CONNECTIONS=0x10,
        OBSERVATORY_CACHE_ENABLED=False,
        OBSERVATORY_RETENTION_TRACES=timedelta(days=90),
        OBSERVATORY_STREAMS=["spans", "logs"],
        OBSERVATORY_DROP=[{"name": "GET /health"}],
        OBSERVATORY_DB_SCHEMA=None,
    )
    texts = config(
        OBSERVATORY_DATABASE_URL=URL,
        OBSERVATORY_DB_POOL_MAX_CONNECTIONS="16",
        OBSERVATORY_CACHE_ENABLED="false",
        OBSERVATORY_RETENTION_TRACES="90d",
        OBSERVATORY_STREAMS="spans, logs",
        OBSERVATORY_DROP='[{"name": "GET /health"}]',
        OBSERVATORY_DB_SCHEMA="",
    )
    assert values == texts
    assert values.postgres.port == 6543
    assert values.pool.max_connections == 16
    assert values.cache.enabled is False
    assert values.retention.traces == timedelta(days=90)
    assert values.postgres.schema_name == "public"


def test_password_may_be_a_function() -> None:
    made = config(OBSERVATORY_DB_PASSWORD=lambda: "of the hour")
    assert made.postgres.expiring_password() == "of the hour"


def test_other_settings_of_the_application_are_ignored() -> None:
    assert config(SECRET_KEY="x", DB_HOST="other", DATABASE_URL=URL) == StorageConfig()


def test_environment_fills_what_the_application_does_not_set(environment: Environment) -> None:
    environment(DATABASE_URL=URL, OBSERVATORY_RETENTION_TRACES="7d")
    made = config(OBSERVATORY_DB_SCHEMA="telemetry", OBSERVATORY_RETENTION_TRACES="1d")
    assert made.postgres.host == "db.internal"
    assert made.postgres.schema_name == "telemetry"
    assert made.retention.traces == timedelta(days=1)


def test_url_of_the_application_is_not_mixed_with_another(
    environment: Environment, tmp_path: Path
) -> None:
    environment(DATABASE_URL=URL)
    (tmp_path / ".env").write_text(f"DATABASE_URL={URL}\nDB_APP_NAME=of-env\n")
    postgres = config(OBSERVATORY_DATABASE_URL="postgresql://localhost/test").postgres
    assert (postgres.host, postgres.database, postgres.password) == ("localhost", "test", None)
    assert postgres.ssl_mode == "prefer"
    assert postgres.application_name == "of-env"


def test_file_has_the_lowest_precedence(tmp_path: Path) -> None:
    file = tmp_path / "storage.yaml"
    file.write_text("postgres: {schema: of_file, application_name: chat}\n")
    sources = sources_of_application(StorageConfig, {"OBSERVATORY_SCHEMA": "of_app"}, file=file)
    made = StorageConfig._from(*sources)
    assert (made.postgres.schema_name, made.postgres.application_name) == ("of_app", "chat")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"OBSERVATORY_DATABSE_URL": URL},
            "app.config: OBSERVATORY_DATABSE_URL: there is no such setting; did you mean"
            " OBSERVATORY_DATABASE_URL?",
        ),
        ({"OBSERVATORY_XYZ": 1}, "app.config: OBSERVATORY_XYZ: there is no such setting"),
        (
            {"OBSERVATORY_DB_PORT": 70000},
            "app.config: OBSERVATORY_DB_PORT = 70000: must be less than or equal to 65535",
        ),
        (
            {"OBSERVATORY_DB_PORT": True},
            "app.config: OBSERVATORY_DB_PORT = True: must be a number, not true or false",
        ),
        (
            {"OBSERVATORY_DATABASE_URL": "mysql://app:s3cret@db/shop"},
            "app.config: OBSERVATORY_DATABASE_URL (its value is not shown): must begin with",
        ),
        (
            {"OBSERVATORY_DB_MAX_CONNECTIONS": 5, "OBSERVATORY_DB_POOL_MAX_CONNECTIONS": 6},
            "app.config: OBSERVATORY_DB_POOL_MAX_CONNECTIONS = 6 and app.config:"
            " OBSERVATORY_DB_MAX_CONNECTIONS = 5: two names of one setting must not differ",
        ),
        (
            {"OBSERVATORY_DB_PASSWORD": 12345},
            "app.config: OBSERVATORY_DB_PASSWORD (its value is not shown): must be text",
        ),
        (
            {"OBSERVATORY_DATABASE_URL": ("postgresql://", "s3cret")},
            "app.config: OBSERVATORY_DATABASE_URL (its value is not shown): must be text",
        ),
    ],
)
def test_error_names_the_setting(settings: dict[str, Any], message: str) -> None:
    told = problems(lambda: config(**settings))
    assert message in told
    assert "s3cret" not in told
    assert "12345" not in told


def test_names_of_the_integration_are_known() -> None:
    assert config(OBSERVATORY_RECORD_REQUESTS=True) == StorageConfig()
