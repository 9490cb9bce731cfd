"""`check`: what it finds wrong, and what it advises."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres, EmbeddedValkey
from observatory_storage import StoragePool
from observatory_storage.models import Base
from tests.commands import Result, Run, runner, traces_request
from tests.payloads.framed import turns, write
from tests.servers import FAST

PASSWORD = "open sesame"
STEPS = [
    "configuration",
    "connection",
    "PostgreSQL",
    "replica",
    "Redis",
    "migrations",
    "tables",
    "maintenance",
    "pool",
    "query",
]
QUICK = {"DB_RETRY_MAX_ATTEMPTS": "2", "DB_RETRY_INITIAL_DELAY_MS": "1"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    bare = runner(monkeypatch, capfd, tmp_path)

    def run(*arguments: str, **given: Any) -> Result:
        return bare(*arguments, **{**QUICK, **given})

    return run


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[EmbeddedPostgres]:
    """A server that asks for a password."""
    with EmbeddedPostgres(password=PASSWORD, settings=FAST, in_memory=True) as server:
        yield server


def steps(result: Result) -> dict[str, str]:
    """Each step's result, after a look at the form of the document."""
    document = result.document
    assert [step["name"] for step in document["steps"]] == STEPS
    assert document["ok"] == (result.code == 0)
    return {step["name"]: step["result"] for step in document["steps"]}


def failure(result: Result, name: str) -> str:
    """The advice of the step that failed, the only one; those that need it are skipped."""
    assert result.code == 1
    found = steps(result)
    assert [step for step, outcome in found.items() if outcome == "failed"] == [name]
    assert PASSWORD not in result.out + result.err
    assert "Traceback" not in result.err
    (step,) = [step for step in result.document["steps"] if step["name"] == name]
    return str(step["advice"])


def test_every_step_passes_on_a_migrated_database(
    run: Run, database_url: str, redis_url: str
) -> None:
    result = run("check", DATABASE_URL=database_url, REDIS_URL=redis_url)
    assert result.code == 0, result.out
    first, source, *lines, verdict = result.out.splitlines()
    assert [line.split()[:2] for line in [first, *lines]] == [["✓", step] for step in STEPS]
    assert source.split()[:2] == ["read", "from"]
    assert {*source.replace(",", "").split()[2:]} == {"DATABASE_URL", "REDIS_URL", *QUICK}
    assert verdict == "everything is in order"
    assert set(steps(run("check", "--json", DATABASE_URL=database_url)).values()) == {"ok"}


def test_debug_tells_more(run: Run, database_url: str) -> None:
    result = run(
        "check", "--log-level", "debug", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/a"
    )
    assert "Traceback" in result.err
    assert "hunter2" not in result.out + result.err
    for arguments in (["check", "--log-level", "debug"], ["--log-level", "debug", "check"]):
        result = run(*arguments, DATABASE_URL=database_url)
        assert result.code == 0
        assert "observatory_storage" in result.err
    assert not run("check", DATABASE_URL=database_url).err


def test_configuration_of_a_file(run: Run, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "storage.json"
    file.write_text(json.dumps({"postgres": {"application_name": "by the file"}}))
    for arguments in (["--config", str(file), "check"], ["check", "--config", str(file)]):
        result = run(*arguments, DATABASE_URL=database_url)
        assert result.code == 0
        assert str(file) in result.out


def test_tables_of_another_layout(run: Run, database_url: str) -> None:
    result = run("check", "--json", DATABASE_URL=database_url, DB_LAYOUT="citus")
    assert "DB_LAYOUT" in failure(result, "connection")
    (step,) = [step for step in result.document["steps"] if step["name"] == "connection"]
    assert "not distributed" in step["detail"]


def test_wrong_configuration(run: Run) -> None:
    advice = failure(run("check", "--json", DB_PORT="65536"), "configuration")
    assert ".env.example" in advice
    result = run("check", DB_PORT="65536", DB_POOL_MAX_CONNECTIONS="many")
    assert "DB_PORT = '65536'" in result.out
    assert "DB_POOL_MAX_CONNECTIONS = 'many'" in result.out


def test_payloads_without_zstandard(run: Run, database_url: str, without_zstd: None) -> None:
    told = run(
        "check", "--json", DATABASE_URL=database_url, OBSERVATORY_PAYLOADS="compressed"
    ).document["steps"]
    assert [step["name"] for step in told if step["result"] == "failed"] == ["configuration"]
    assert "pip install 'observatory-storage[zstd]'" in told[0]["detail"]
    assert told[0]["advice"] is None
    assert {step["result"] for step in told[1:]} == {"skipped"}


def test_frames_without_zstandard(
    run: Run, pool: StoragePool, database_url: str, request: pytest.FixtureRequest
) -> None:
    write(pool, *turns([1], 1))
    assert run("check", DATABASE_URL=database_url).code == 0
    request.getfixturevalue("without_zstd")
    result = run("check", "--json", DATABASE_URL=database_url)
    assert result.code == 1
    (failed,) = [step for step in result.document["steps"] if step["result"] == "failed"]
    assert failed["name"] == "query"
    assert "pip install 'observatory-storage[zstd]'" in failed["detail"]


def test_no_frames_without_zstandard(run: Run, database_url: str, without_zstd: None) -> None:
    assert run("check", DATABASE_URL=database_url).code == 0


def test_wrong_password(run: Run, guarded_server: EmbeddedPostgres) -> None:
    url = f"postgresql://postgres:hunter2@127.0.0.1:{guarded_server.port}/postgres"
    result = run("check", "--json", DATABASE_URL=url)
    advice = failure(result, "connection")
    assert advice.startswith("The server rejected the password of 'postgres'")
    assert "hunter2" not in result.out + result.err


def test_no_password(run: Run, guarded_server: EmbeddedPostgres) -> None:
    url = f"postgresql://postgres@127.0.0.1:{guarded_server.port}/postgres"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice.startswith("The server requires a password: set DB_PASSWORD")


def test_missing_database(run: Run, guarded_server: EmbeddedPostgres) -> None:
    url = guarded_server.url_of("nothere")
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice.startswith("The server has no database 'nothere': create it (createdb nothere)")


def test_forbidden_database(run: Run, guarded_server: EmbeddedPostgres) -> None:
    with psycopg.connect(guarded_server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        connection.execute("CREATE DATABASE closed")
        connection.execute("REVOKE CONNECT ON DATABASE closed FROM public")
    url = f"postgresql://guest:guest@127.0.0.1:{guarded_server.port}/closed"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice == "The role 'guest' may not connect to 'closed': grant it CONNECT."


def test_server_without_ssl(run: Run, guarded_server: EmbeddedPostgres) -> None:
    url = f"{guarded_server.url}?sslmode=require"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice == "The server does not offer SSL, which DB_SSL_MODE=require requires."


def test_closed_port(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://postgres:x@127.0.0.1:{port}/app"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice.startswith(f"Nothing listens on 127.0.0.1 port {port}: start PostgreSQL there")
    url = f"postgresql://postgres@/app?host={tmp_path}"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice.startswith(f"Nothing listens on {tmp_path} port 5432")


def test_a_port_that_accepts_connections_and_never_answers(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://postgres:x@127.0.0.1:{silent.getsockname()[1]}/app"
        settings = {"DB_POOL_CONNECT_TIMEOUT": "1", "DB_RETRY_MAX_ATTEMPTS": "1"}
        result = run("check", "--json", DATABASE_URL=url, **settings)
    advice = failure(result, "connection")
    assert (
        "accepted the connection and did not answer within 1 s (DB_POOL_CONNECT_TIMEOUT)" in advice
    )


def test_fewer_connections_than_wanted(run: Run, guarded_server: EmbeddedPostgres) -> None:
    with psycopg.connect(guarded_server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 2")
    url = f"postgresql://few:few@127.0.0.1:{guarded_server.port}/postgres"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice.startswith("The server accepts a connection now: run the command again.")
    assert "fewer connections than DB_POOL_MIN_CONNECTIONS, 5" in advice


def test_tables_that_may_not_be_written(run: Run, guarded_server: EmbeddedPostgres) -> None:
    with psycopg.connect(guarded_server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shared")
    assert run("migrate", DATABASE_URL=guarded_server.url_of("shared")).code == 0
    url = f"postgresql://reader:reader@127.0.0.1:{guarded_server.port}/shared"

    def detail() -> str:
        result = run("check", "--json", DATABASE_URL=url)
        failure(result, "tables")
        return str(result.document["steps"][STEPS.index("tables")]["detail"])

    with psycopg.connect(guarded_server.url_of("shared"), autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        connection.execute("GRANT SELECT ON traces, observatory_version TO reader")
        others = ", ".join(sorted(Base.metadata.tables.keys() - {"traces"}))
        assert f"reader may not read {others}" in detail()
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        assert "not written: reader has no INSERT on log_frames, logs," in detail()
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO reader")
        assert "reader does not own the tables" in detail()
        maintained = run("maintain", DATABASE_URL=guarded_server.url_of("shared"))
        assert maintained.code == 0
        told = run("check", DATABASE_URL=url)
        assert (told.code, "has to run as their owner" in told.out) == (0, True)
        connection.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        assert "transactions are read-only" in detail()
        ended = run("ingest", "-", DATABASE_URL=url, stdin=json.dumps(traces_request()).encode())
        assert ended.code == 1
        assert "The server is read-only: it is a replica" in ended.err
        connection.execute("GRANT postgres TO reader")
        connection.execute("ALTER ROLE reader RESET default_transaction_read_only")
        assert run("check", DATABASE_URL=url).code == 0
        connection.execute("ALTER TABLE logs RENAME TO elsewhere")
        assert detail() == "missing in schema public: logs"


def test_unknown_host(run: Run) -> None:
    url = "postgresql://postgres:x@no-such-host.invalid/app"
    advice = failure(run("check", "--json", DATABASE_URL=url), "connection")
    assert advice.startswith("There is no host named 'no-such-host.invalid'")


def test_pending_migrations(run: Run, empty_database_url: str) -> None:
    advice = failure(run("check", "--json", DATABASE_URL=empty_database_url), "migrations")
    assert advice == "Run: observatory-storage migrate"
    assert run("migrate", DATABASE_URL=empty_database_url).code == 0
    assert run("check", DATABASE_URL=empty_database_url).code == 0


def test_dead_redis(run: Run, database_url: str) -> None:
    with EmbeddedValkey() as server:
        url = server.url
    result = run("check", "--json", DATABASE_URL=database_url, REDIS_URL=url)
    assert failure(result, "Redis").startswith(
        "Start Redis or correct REDIS_URL. Redis is optional"
    )
    # Nothing that can do without it is skipped.
    assert "skipped" not in steps(result).values()


def test_redis_is_asked_without_postgresql(run: Run, redis_url: str) -> None:
    result = run(
        "check", "--json", DATABASE_URL="postgresql://u@127.0.0.1:1/a", REDIS_URL=redis_url
    )
    failure(result, "connection")
    assert steps(result)["Redis"] == "ok"


def test_marks_where_the_terminal_knows_no_others(run: Run, database_url: str) -> None:
    result = run("check", DATABASE_URL=database_url, PYTHONIOENCODING="ascii")
    assert result.code == 0


def test_other_commands_give_the_advice_too(run: Run) -> None:
    result = run("traces", DATABASE_URL="postgresql://u:x@127.0.0.1:1/a")
    assert result.code == 1
    error, advice = result.err.splitlines()
    assert error.startswith("error: ")
    assert advice.startswith("  Nothing listens on 127.0.0.1 port 1: start PostgreSQL")
