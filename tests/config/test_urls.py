"""URLs: DATABASE_URL as libpq parses it, REDIS_URL, and the URL for SQLAlchemy."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from observatory_storage.config import PostgresConfig, RedisConfig, StorageConfig
from observatory_storage.config.urls import parse_database_url
from tests.config.conftest import Environment, problems


def plain(found: dict[str, Any]) -> dict[str, Any]:
    return {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in found.items()}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", {}),
        ("postgresql:///db", {"dbname": "db"}),
        ("postgresql://h", {"host": "h", "port": "5432"}),
        ("postgres://u:p@h:1/d", {"user": "u", "password": "p", "host": "h", "dbname": "d"}),
        ("postgresql+psycopg://h/", {"host": "h", "port": "5432"}),
        ("POSTGRESQL://h", {"host": "h", "port": "5432"}),
        ("  postgresql://h\n", {"host": "h", "port": "5432"}),
        ("postgresql://u:p%40%3A%2F%25%2540@h:1", {"password": "p@:/%%40", "port": "1"}),
        ("postgresql://u%40x:a:b@h", {"user": "u@x", "password": "a:b"}),
        ("postgresql://u:a?b#c+d@h/db", {"password": "a?b#c+d", "host": "h", "dbname": "db"}),
        ("postgresql://:p@h", {"password": "p", "host": "h"}),
        ("postgresql://u@:5433/d", {"user": "u", "port": "5433", "dbname": "d"}),
        ("postgresql://[::1]/d", {"host": "::1", "port": "5432"}),
        ("postgresql://u@[2001:db8::1]:7/d", {"host": "2001:db8::1", "port": "7"}),
        ("postgresql://%2Frun%2Fpostgresql/d", {"host": "/run/postgresql", "dbname": "d"}),
        ("postgresql://%2Frun:7/d", {"host": "/run", "port": "7"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "port": "5432"}),
        ("postgresql://h:1/d?host=/run&port=2", {"host": "/run", "port": "2"}),
        ("postgresql://h?sslrootcert=/a/b", {"host": "h", "sslrootcert": "/a/b"}),
        ("postgresql://h1,h2/d", {"host": "h1:5432,h2:5432"}),
        ("postgresql://h1:1,h2,[::1]:3/d", {"host": "h1:1,h2:5432,[::1]:3"}),
        ("postgresql:///d?host=h1,h2&port=1,2", {"host": "h1:1,h2:2"}),
        ("postgresql:///d?host=h1,h2&port=7", {"host": "h1,h2", "port": "7"}),
        ("postgresql://h/my%20db", {"dbname": "my db"}),
        ("postgresql://h?options=-c%20a%3Db", {"options": "-c a=b"}),
        ("postgresql://h?options=a+b", {"options": "a+b"}),
        ("postgresql+psycopg://h?options=a+b", {"options": "a b"}),
        ("postgresql://h?ssl=true", {"sslmode": "require"}),
        ("postgresql://?user=u&password=p%25&dbname=d", {"user": "u", "password": "p%"}),
        ("postgresql://h?target_session_attrs=any", {"target_session_attrs": "any"}),
        ("postgresql+psycopg2://u:p@h/d", {"user": "u", "password": "p", "host": "h"}),
        ("postgres+asyncpg://h/d?ssl=require", {"host": "h", "sslmode": "require"}),
        ("postgresql://h?ssl=no-verify", {"sslmode": "require"}),
        ("'postgresql://h/d'", {"host": "h", "dbname": "d"}),
        ('"postgresql://u:p\'@h/d"', {"password": "p'", "dbname": "d"}),
        (
            "postgresql://u:p@/d?host=/cloudsql/project:region:instance",
            {"host": "/cloudsql/project:region:instance", "dbname": "d"},
        ),
        (
            "postgresql+pg8000://u@%2Fcloudsql%2Fproject%3Aregion%3Ainstance/d",
            {"host": "/cloudsql/project:region:instance", "dbname": "d"},
        ),
        (
            "postgresql://h/d?pgbouncer=true&connection_limit=5&pool_timeout=3&schema=mine",
            {"connection_limit": "5", "pool_timeout": "3", "schema": "mine", "dbname": "d"},
        ),
        (
            "postgresql://h/d?sslmode=require&channel_binding=require&supa=base-pooler.x",
            {"sslmode": "require", "channel_binding": "require"},
        ),
    ],
)
def test_database_urls(url: str, expected: dict[str, str]) -> None:
    found = plain(parse_database_url(url))
    assert {key: found.get(key) for key in expected} == expected


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(
    names=st.tuples(NAMES, NAMES, NAMES, NAMES),
    host=st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True) | st.ip_addresses().map(str),
    port=st.integers(1, 65535),
)
def test_database_urls_are_read_as_libpq_reads_them(
    names: tuple[str, str, str, str], host: str, port: int
) -> None:
    user, password, database, application = names
    address = f"[{host}]" if ":" in host else host
    url = (
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{address}:{port}"
        f"/{quote(database)}?application_name={quote(application, safe='')}&keepalives=1"
    )
    expected = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    assert plain(parse_database_url(url)) == expected
    assert expected["password"] == password


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("db.internal", "must be a URL such as postgresql://"),
        ("host=db user=u", "must be a URL such as postgresql://"),
        ("mysql://u:hunter2@h/d", "postgresql://"),
        ("jdbc:postgresql://h/d", "not jdbc:postgresql://"),
        ("postgresql+pg9000://u:hunter2@h/d", "no driver pg9000 of PostgreSQL"),
        ("psql 'postgresql://u:hunter2@h/d'", "leave out the command psql"),
        ("postgresql://u:hunter2@x@h/d", "@ as %40"),
        ("postgresql://u:hunter2/x@h/d", "/ as %2F"),
        ("postgresql://u:a/hunter2?hunter2@h/d", "/ as %2F"),
        ("postgresql://u:hunter2%@h/d", "% as %25"),
        ("postgresql://u:hunter2%zz@h/d", "% as %25"),
        ("postgresql://u:hunter2%00@h/d", "password"),
        ("postgresql://u:hunter2%ff@h/d", "UTF-8"),
        ("postgresql://u:hunter2", "the port a number"),
        ("postgresql://h:port/d", "the port a number"),
        ("postgresql://::1/d", "brackets"),
        ("postgresql://h:0/d", "greater than or equal to 1"),
        ("postgresql://h:65536/d", "65535"),
        ("postgresql://h:654321/d", "the port a number"),
        ("postgresql://h1,,h2/d", "empty host"),
        ("postgresql:///d?host=h1,h2&port=1,2,3", "3 ports for 2 hosts"),
        ("postgresql://h/d?sslmod=require", "'sslmod'"),
        ("postgresql://h/d?pgbouncer=true&x=1", "does not know: 'x'"),
        ("postgresql://h/d?sslaccept=strict", "sslmode=verify-full"),
        ("postgresql://h/d?currentSchema=mine", "schema="),
        ("postgresql://h/d?sslmode", "without a value"),
        ("postgresql://h/d?host=h1&host=h2", "twice"),
        ("postgresql://h/d?sslmode=on", "DATABASE_URL (sslmode) = 'on'"),
        ("postgresql://h/d?sslcert=/none.crt", "DATABASE_URL (sslcert) = '/none.crt'"),
        ("postgresql://h/d?connect_timeout=x", "DATABASE_URL (connect_timeout) = 'x'"),
        ("postgresql://h%20h/d", "DATABASE_URL (host)"),
    ],
)
def test_error_says_what_is_wrong_with_a_database_url(
    environment: Environment, url: str, right: str
) -> None:
    environment(DATABASE_URL=url)
    message = problems(StorageConfig.from_env)
    assert message.startswith("DATABASE_URL")
    assert right in message
    assert "hunter2" not in message


def test_database_url_takes_precedence_over_single_variables(environment: Environment) -> None:
    environment(
        DB_HOST="other", DB_PORT="1", DB_NAME="other", DB_USER="other", DB_PASSWORD="other",
        DB_SSL_MODE="disable", DB_APP_NAME="other", DB_SCHEMA="mine", DB_POOL_CONNECT_TIMEOUT="9",
    )  # fmt: skip
    environment(DATABASE_URL="postgresql://u:p@h/d?sslmode=require&application_name=chat"
                "&connect_timeout=3&target_session_attrs=read-write")  # fmt: skip
    config = StorageConfig.from_env()
    postgres = config.postgres
    assert (postgres.host, postgres.port, postgres.database) == ("h", 5432, "d")
    assert (postgres.username, postgres.ssl_mode, postgres.application_name) == (
        "u",
        "require",
        "chat",
    )
    assert postgres.password == SecretStr("p")
    assert postgres.schema_name == "mine"
    assert postgres.parameters == {"target_session_attrs": "read-write"}
    assert config.pool.connect_timeout_secs == 3
    # Parts that the URL omits come from the variables.
    environment(DATABASE_URL="postgresql://h")
    postgres = StorageConfig.from_env().postgres
    assert (postgres.username, postgres.password) == ("other", SecretStr("other"))
    assert (postgres.host, postgres.port) == ("h", 5432)


@pytest.mark.parametrize(
    ("config", "host", "port", "query"),
    [
        (PostgresConfig(host="h", port=7), "h", 7, {}),
        (PostgresConfig(host="::1"), "::1", 5432, {}),
        (PostgresConfig(host="/run/pg", port=7), None, None, {"host": "/run/pg", "port": "7"}),
        (PostgresConfig(host="@abstract"), None, None, {"host": "@abstract", "port": "5432"}),
        (
            PostgresConfig(host="h1:1,[::1]:2,/run,h4", port=7),
            None,
            None,
            {"host": "h1,::1,/run,h4", "port": "1,2,7,7"},
        ),
    ],
)
def test_url_for_sqlalchemy(
    config: PostgresConfig, host: str | None, port: int | None, query: dict[str, str]
) -> None:
    url = config.url()
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port) == (host, port)
    assert url.query == {
        "sslmode": "prefer",
        "application_name": "observatory_storage",
        **query,
    }
    # Converted to text and back, as Alembic and scripts do.
    text = url.render_as_string(hide_password=False)
    assert make_url(text) == url
    assert PostgresConfig.from_url(text).url() == url
    arguments = sa.create_engine(url).dialect.create_connect_args(url)[1]
    assert arguments["host"] == query.get("host", host)
    assert str(arguments["port"]) == query.get("port", str(port))


@given(password=NAMES, application=st.from_regex(r"[a-z0-9 @:/%?&=+#-]{0,50}[a-z]", fullmatch=True))
def test_any_password_survives_the_url(password: str, application: str) -> None:
    config = PostgresConfig(password=SecretStr(password), application_name=application.strip())
    text = config.url().render_as_string(hide_password=False)
    assert PostgresConfig.from_url(text) == config


def test_from_url() -> None:
    url = "postgresql://u:p@h/d?sslpassword=x&keepalives=1"
    config = PostgresConfig.from_url(SecretStr(url), schema="mine", statement_timeout_ms=5)
    assert config == PostgresConfig.from_url(url, schema="mine", statement_timeout_ms=5)
    assert (config.schema_name, config.statement_timeout_ms) == ("mine", 5)
    assert config.connect_args() == {"sslpassword": "x"}
    message = problems(lambda: PostgresConfig.from_url("postgresql://h?connect_timeout=3"))
    assert "connect_timeout" in message
    assert "pool.connect_timeout_secs" in message
    assert "postgresql://" in problems(lambda: PostgresConfig.from_url("mysql://h"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", None),
        ("redis://localhost:6379/0", None),
        ("rediss://u:p%40@[::1]:6380/15?socket_timeout=1", None),
        ("redis://:p@h", None),
        ("unix:///run/redis.sock?db=1", None),
        ("unix://u:p@/run/redis.sock", None),
        (" redis://h ", "redis://h"),
        ("valkey://h:1/2", "redis://h:1/2"),
        ("valkeys://h", "rediss://h"),
        ("Redis://h", "redis://h"),
    ],
)
def test_redis_urls(environment: Environment, url: str, expected: str | None) -> None:
    environment(REDIS_URL=url)
    assert StorageConfig.from_env().redis.url == SecretStr(expected or url)


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("localhost:6379", "must begin with redis://"),
        ("http://hunter2@h", "must begin with redis://"),
        ("memcached://h", "valkey://"),
        ("redis://:hunter2@x@h", "@ as %40"),
        ("redis://:hunter2/x@h", "/ as %2F"),
        ("redis://:hunter2#x@h", "%23"),
        ("redis://:hunter2%@h", "% as %25"),
        ("redis://:[hunter2@h", "brackets"),
        ("redis://:[hunter2]@h", "brackets"),
        ("redis://h:0", "1 to 65535"),
        ("redis://h:65536", "1 to 65535"),
        ("redis://h:hunter2", "port number"),
        ("redis://::1", "brackets"),
        ("redis://h/db0", "number of a database"),
        ("unix://", "name the socket"),
    ],
)
def test_error_says_what_is_wrong_with_a_redis_url(
    environment: Environment, url: str, right: str
) -> None:
    environment(REDIS_URL=url)
    message = problems(StorageConfig.from_env)
    assert message.startswith("REDIS_URL (its value is not shown): ")
    assert right in message
    assert "hunter2" not in message
    assert right in problems(lambda: RedisConfig(url=SecretStr(url)))


def test_url_connects_to_the_server(environment: Environment, empty_database_url: str) -> None:
    environment(DATABASE_URL=empty_database_url, DB_APP_NAME="configured")
    engine = sa.create_engine(StorageConfig.from_env().postgres.url())
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW application_name")) == "configured"
    engine.dispose()


SOCKET = "/cloudsql/project:region:instance"


@pytest.mark.parametrize(
    "variables",
    [
        {"DB_HOST": SOCKET, "DB_NAME": "d"},
        {"DATABASE_URL": f"postgresql:///d?host={SOCKET}"},
        {"DATABASE_URL": f"postgresql+psycopg2://@/d?host={quote(SOCKET, safe='')}"},
    ],
)
def test_the_sockets_of_cloud_sql_reach_libpq(
    environment: Environment, variables: dict[str, str]
) -> None:
    environment(**variables)
    dialect = sa.create_engine("postgresql+psycopg://").dialect
    _, parameters = dialect.create_connect_args(StorageConfig.from_env().postgres.url())
    assert (parameters["host"], parameters["dbname"]) == (SOCKET, "d")


def test_the_pool_of_prisma_s_urls_is_taken_over(environment: Environment) -> None:
    environment(DATABASE_URL="postgresql://h/d?connection_limit=2&pool_timeout=7&schema=mine")
    config = StorageConfig.from_env()
    assert (config.pool.max_connections, config.pool.min_connections) == (2, 2)
    assert config.pool.acquire_timeout_secs == 7
    assert config.postgres.schema == "mine"
