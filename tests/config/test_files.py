"""Configuration files in three formats, and the sources that take precedence over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from observatory_storage.config import PostgresConfig, StorageConfig
from tests.config.conftest import Environment, problems

YAML = """
# Only what differs.
postgres:
  host: from-file
  port: 6432
  schema: telemetry
redis:
pool: {max_connections: 9, idle_timeout_secs: 0.5}
"""
TOML = """
[postgres]
host = "from-file"
port = 6432
schema = "telemetry"
[pool]
max_connections = 9
idle_timeout_secs = 0.5
"""
JSON = json.dumps(
    {
        "postgres": {"host": "from-file", "port": 6432, "schema": "telemetry"},
        "redis": None,
        "pool": {"max_connections": 9, "idle_timeout_secs": 0.5},
    }
)
FORMS = [("a.yaml", YAML), ("a.yml", YAML), ("a.YAML", YAML), ("a.toml", TOML), ("a.json", JSON)]


def written(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "text"), FORMS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_all_file_formats_give_the_same_configuration(name: str, text: str, mark: str) -> None:
    config = StorageConfig.from_file(written(name, mark + text))
    assert config == StorageConfig.from_file(str(Path(name).absolute()))
    assert config.postgres == PostgresConfig(host="from-file", port=6432, schema="telemetry")
    assert (config.pool.max_connections, config.pool.min_connections) == (9, 5)
    assert config.pool.idle_timeout_secs == 0.5
    assert config.redis == StorageConfig().redis


def test_environment_beats_dotenv_which_beats_the_file(environment: Environment) -> None:
    written(".env", "DB_HOST=from-dotenv\nDB_NAME=from-dotenv\nDATABASE_URL=postgresql://@:7\n")
    environment(DB_HOST="from-environment", DB_MAX_CONNECTIONS="8")
    path = written(
        "a.yaml",
        "postgres: {host: from-file, port: 1, database: from-file, username: from-file}\n"
        "pool: {max_connections: 7, connect_timeout_secs: 6}\n",
    )
    config = StorageConfig.from_file(path)
    assert config.postgres.host == "from-environment"
    assert config.postgres.database == "from-dotenv"
    assert config.postgres.port == 7
    assert config.postgres.username == "from-file"
    assert (config.pool.max_connections, config.pool.connect_timeout_secs) == (8, 6)
    assert config.retry.max_attempts == 3
    # The values of the file do not persist.
    assert StorageConfig.from_env().postgres.username == "postgres"


def test_database_url_beats_a_file(environment: Environment) -> None:
    environment(DATABASE_URL="postgresql://u:p@h/d?target_session_attrs=any")
    path = written(
        "a.yaml", "postgres: {host: x, port: 1, schema: s, parameters: {keepalives: 1}}\n"
    )
    postgres = StorageConfig.from_file(path).postgres
    assert (postgres.host, postgres.port, postgres.schema_name) == ("h", 5432, "s")
    assert postgres.parameters == {"target_session_attrs": "any", "keepalives": "1"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "postgres:\nredis:\n"])
def test_an_empty_file_leaves_the_defaults(text: str) -> None:
    assert StorageConfig.from_file(written("a.yaml", text)) == StorageConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres: {port: 0}", "a.yaml: postgres.port = 0: must be greater"),
        ("postgres: {port: '0'}", "a.yaml: postgres.port = '0': must be greater"),
        ("postgres: {port: yes}", "a.yaml: postgres.port = True: must be a number"),
        ("postgres: {port: 5.5}", "a.yaml: postgres.port = 5.5: must be a whole number"),
        ("postgres: {port: [1]}", "a.yaml: postgres.port: must be a whole number"),
        ("postgres: {database: 2024}", "a.yaml: postgres.database = 2024: must be text"),
        ("postgres: {database: no}", "a.yaml: postgres.database = False: must be text"),
        ("postgres: {database: ''}", "a.yaml: postgres.database = '': must not be empty"),
        ("postgres: {host: }", "a.yaml: postgres.host: must be text"),
        ("postgres: {schema: pg_x}", "a.yaml: postgres.schema = 'pg_x': must not"),
        ("postgres: {hots: x}", "a.yaml: postgres.hots: unknown key; did you mean 'host'?"),
        ("postgres: {schema_name: x}", "a.yaml: postgres.schema_name: unknown key; did you mean"),
        ("postgres: {user: x}", "a.yaml: postgres.user: unknown key; did you mean 'username'?"),
        ("Pool: {}", "a.yaml: Pool: unknown key; did you mean 'pool'?"),
        ("databases: {}", "a.yaml: databases: unknown key; known here: cache, llm, "),
        ("1: {}", "a.yaml: 1: unknown key"),
        ("pool: {1: 2}", "a.yaml: pool.1: unknown key"),
        ("pool: 5", "a.yaml: pool: must be a group of keys"),
        ("postgres: [host]", "a.yaml: postgres: must be a group of keys"),
        ("postgres: {parameters: {hots: x}}", "a.yaml: postgres.parameters"),
        ("[1]", "a.yaml: must hold groups of keys: postgres, redis, cache, pool, retry"),
        ("just text", "a.yaml: must hold groups of keys"),
        ("pool:\n  max_connections: 1\n  max_connections: 2", "a.yaml: line 3: the key is there"),
        ("pool: {}\npool: {}", "a.yaml: line 2: the key is there twice"),
        ("postgres:\n  host: 'x", "a.yaml: line 2, column"),
        ("postgres: !python/name:os.system", "a.yaml: line 1, column"),
        ("postgres: {password: *undefined}", "a.yaml: line 1, column"),
        ("pool: {max_connections: 3, min_connections: 4}", "3 (a.yaml: pool.max_connections)"),
        ("redis: {url: 'http://x'}", "a.yaml: redis.url (its value is not shown): must begin"),
    ],
)
def test_error_names_the_key_of_the_file_and_the_rule(text: str, expected: str) -> None:
    assert expected in problems(lambda: StorageConfig.from_file(written("a.yaml", text)))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.toml", "[pool]\nmax_connections = x", "a.toml: line 2, column"),
        ("a.toml", "[pool]\nmax_connections =", "a.toml: end of document: is not TOML"),
        ("a.toml", "[pool]\n[pool]", "a.toml: line 2, column"),
        ("a.toml", "[postgres]\nport = 0", "a.toml: postgres.port = 0"),
        ("a.toml", "[postgres]\npassword = 1979-05-27", "a.toml: postgres.password"),
        ("a.toml", "[postgre]\nport = 0", "a.toml: postgre: unknown key; did you mean 'postgres'?"),
        ("a.json", '{"pool": {"max_connections": 1,}}', "a.json: line 1, column"),
        ("a.json", '{"pool": {}, "pool": {}}', "a.json: a group has the same key twice"),
        ("a.json", '{"pool": {"max_connections": "x"}}', "a.json: pool.max_connections = 'x'"),
        ("a.json", "[]", "a.json: must hold groups of keys"),
        ("a.json", "", "a.json: line 1, column 1"),
        ("a.ini", "[pool]", "a.ini: the name must end in .yaml, .yml, .toml, .json"),
        ("storage", "", "storage: the name must end in"),
    ],
)
def test_error_gives_the_position_in_toml_and_json(name: str, text: str, expected: str) -> None:
    assert expected in problems(lambda: StorageConfig.from_file(written(name, text)))


def test_error_names_a_file_that_cannot_be_read() -> None:
    assert problems(lambda: StorageConfig.from_file("no/such.yaml")) == (
        "no/such.yaml: cannot be read: No such file or directory"
    )
    Path("folder.toml").mkdir()
    assert "folder.toml: cannot be read" in problems(lambda: StorageConfig.from_file("folder.toml"))
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    assert "must be UTF-8 text" in problems(lambda: StorageConfig.from_file("binary.json"))


def test_problems_of_all_sources_are_listed_together(environment: Environment) -> None:
    environment(DB_PORT="x")
    written(".env", "DB_SSL_MODE=on\n")
    path = written("a.toml", "[pool]\nmax_connections = 0\n[retry]\nmax_atempts = 1\n")
    message = problems(lambda: StorageConfig.from_file(path))
    assert message.splitlines()[0] == "4 problems in the configuration:"
    for name in ("DB_PORT", ".env: DB_SSL_MODE", "a.toml: pool.max_connections", "max_atempts"):
        assert name in message


def test_invalid_value_that_another_source_overrides_is_ignored(
    environment: Environment,
) -> None:
    environment(DB_PORT="7")
    path = written("a.yaml", "postgres: {port: 0}")
    assert StorageConfig.from_file(path).postgres.port == 7


def test_yaml_may_merge_groups() -> None:
    text = "pool: &p {max_connections: 9}\nretry:\n  <<: {max_attempts: 4}\n  max_delay_ms: 400\n"
    config = StorageConfig.from_file(written("a.yaml", text))
    assert (config.retry.max_attempts, config.retry.max_delay_ms) == (4, 400)
