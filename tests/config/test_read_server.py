"""DATABASE_READ_URL: what it says, what it takes from the primary, and what it must not say."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.config.application_source import sources_of_application
from tests.config.conftest import Environment, problems

PRIMARY = "postgresql://app:secret@db1:6000/telemetry?target_session_attrs=read-write&keepalives=1"


def read_server(url: str, **given: Any) -> PostgresConfig:
    found = PostgresConfig.from_url(PRIMARY, schema="s", read_url=url, **given).read_server()
    assert found is not None
    return found


def test_without_a_url_there_is_no_read_server() -> None:
    assert PostgresConfig.from_url(PRIMARY).read_server() is None


def test_what_the_url_omits_is_as_for_the_primary() -> None:
    found = read_server("postgresql://db2/", statement_timeout_ms=5)
    expected = PostgresConfig.from_url(
        "postgresql://app:secret@db2/telemetry?keepalives=1", schema="s", statement_timeout_ms=5
    )
    assert found == expected
    assert (
        found.url()
        .render_as_string(hide_password=False)
        .startswith("postgresql+psycopg://app:secret@db2:5432/telemetry")
    )


def test_what_the_url_says_takes_precedence() -> None:
    found = read_server("postgresql://other:pw@h1,h2:99/db?target_session_attrs=prefer-standby")
    assert (found.host, found.username, found.database) == ("h1:5432,h2:99", "other", "db")
    assert found.parameters == {"keepalives": "1", "target_session_attrs": "prefer-standby"}
    assert found.url().query["port"] == "5432,99"
    assert found.url().password == "pw"


def test_another_role_is_not_given_the_password_of_the_primary() -> None:
    assert read_server("postgresql://other@db2/").password is None
    assert read_server("postgresql://app@db2/").password is not None


def test_a_function_for_the_password_serves_both() -> None:
    primary = PostgresConfig(password=lambda: "token", read_url="postgresql://db2/")  # type: ignore[arg-type]
    found = primary.read_server()
    assert found is not None
    assert found.expiring_password() == "token"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("nonsense:hunter2", "must be a URL such as"),
        ("postgresql:///db", "must name a host"),
        ("postgresql://db2/?schema=other", "must not name another schema"),
        ("postgresql://db2/?connection_limit=5", "the same for both servers: pool.max_connections"),
        ("postgresql://db2/?sslmode=verify-full&sslrootcert=/nowhere", "ssl_root_cert"),
        ("postgresql://db2/?nonsense=1", "libpq does not know"),
    ],
)
def test_an_invalid_url_is_refused_and_not_shown(url: str, rule: str) -> None:
    line = problems(lambda: PostgresConfig.from_url(PRIMARY, schema="s", read_url=url))
    assert line.startswith("postgres.read_url (its value is not shown): ")
    assert rule in line
    assert "hunter2" not in line
    assert "secret" not in line


def test_a_cluster_has_no_read_server() -> None:
    standby = "postgresql://db2/"
    line = problems(lambda: PostgresConfig.from_url(PRIMARY, layout="citus", read_url=standby))
    assert "must be omitted with the layout citus" in line
    assert PostgresConfig.from_url(PRIMARY, layout="citus").read_server() is None


def test_the_schema_of_the_primary_may_be_repeated() -> None:
    assert read_server("postgresql://db2/?schema=s").schema == "s"


def test_the_variable_is_read(environment: Environment) -> None:
    environment(DATABASE_URL=PRIMARY, DATABASE_READ_URL="postgresql://db2/")
    found = StorageConfig.from_env().postgres.read_server()
    assert found is not None
    assert (found.host, found.database) == ("db2", "telemetry")
    environment(DATABASE_URL=PRIMARY, DATABASE_READ_URL="  ")
    assert StorageConfig.from_env().postgres.read_server() is None
    environment(DATABASE_URL=PRIMARY, DATABASE_READ_URL="postgresql:///db")
    line = problems(StorageConfig.from_env)
    assert line.startswith("DATABASE_READ_URL (its value is not shown): must name a host")


def test_an_application_with_a_url_of_its_own_does_not_read_from_another_database(
    environment: Environment,
) -> None:
    environment(DATABASE_URL=PRIMARY, DATABASE_READ_URL="postgresql://db2/")
    own = {"OBSERVATORY_DATABASE_URL": "postgresql://elsewhere/app"}
    config = StorageConfig._from(*sources_of_application(StorageConfig, own))
    assert config.postgres.read_server() is None
    own["OBSERVATORY_DATABASE_READ_URL"] = "postgresql://replica/"
    config = StorageConfig._from(*sources_of_application(StorageConfig, own))
    found = config.postgres.read_server()
    assert found is not None
    assert (found.host, found.database) == ("replica", "app")
