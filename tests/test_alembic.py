"""Alembic's command line from the repository, and what it generates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from observatory_storage import migrate
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.pool import StoragePool
from tests.catalog import definitions

ROOT = Path(__file__).resolve().parent.parent


def alembic(
    url: str, *arguments: str, folder: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DB_", "DATABASE_"))}
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        env={**environment, "DATABASE_URL": url, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_does_what_the_pool_does(
    empty: sa.Engine, empty_database_url: str
) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(empty_database_url, schema="by_pool"))
    with StoragePool(config) as pool:
        pool.run_migrations()
    done = alembic(empty_database_url, "upgrade", "head", DB_SCHEMA="by_command")
    assert done.returncode == 0, done.stderr
    assert definitions(empty, "by_command") == definitions(empty, "by_pool")
    assert migrate.current(empty, "by_command") == migrate.head()
    checked = alembic(empty_database_url, "check", DB_SCHEMA="by_command")
    assert "No new upgrade operations detected" in checked.stdout, checked.stderr


def test_the_command_line_fails_in_one_line() -> None:
    url = "postgresql://someone:hunter2secret@127.0.0.1:1/none"
    failed = alembic(url, "upgrade", "head", DB_RETRY_MAX_ATTEMPTS="1")
    assert failed.returncode != 0
    assert "Connection refused" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr
    assert "hunter2secret" not in failed.stdout + failed.stderr


def test_sql_without_a_connection_makes_the_same_schema(
    empty: sa.Engine, empty_database_url: str
) -> None:
    printed = alembic("postgresql://127.0.0.1:1/none", "upgrade", "head", "--sql", DB_SCHEMA="x")
    assert printed.returncode == 0, printed.stderr
    with empty.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.autocommit = True
        raw.execute(printed.stdout)
    migrate.upgrade(empty, "y")
    assert definitions(empty, "x") == definitions(empty, "y")
    assert migrate.current(empty, "x") == migrate.head()


def test_a_generated_migration_names_the_schema_and_states_the_rules(
    empty: sa.Engine, tmp_path: Path
) -> None:
    migrate.upgrade(empty, "obs")
    with empty.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE obs.traces DROP COLUMN lead_span_id")
        connection.exec_driver_sql("CREATE TABLE obs.application (id int)")
    scripts = tmp_path / "alembic"
    shutil.copytree(ROOT / "alembic", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    with empty.connect() as connection:
        config.attributes.update(connection=connection, schema="obs", compare=True)
        command.revision(config, "a column", autogenerate=True)
    [made] = scripts.glob("versions/*_a_column.py")
    text = made.read_text()
    assert "op.add_column('traces', sa.Column('lead_span_id'" in text
    assert "schema=schema)" in text
    assert "'obs'" not in text
    assert "application" not in text
    assert "CONCURRENTLY" in text
    compile(text, str(made), "exec")


@pytest.mark.parametrize("arguments", [[], ["--autogenerate"]], ids=["empty", "autogenerate"])
def test_a_new_migration_passes_the_checks(
    arguments: list[str], empty: sa.Engine, empty_database_url: str, tmp_path: Path
) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        # Views depend on most of the columns.
        connection.exec_driver_sql("ALTER TABLE logs DROP COLUMN otlp")
        connection.exec_driver_sql("ALTER TABLE traces DROP COLUMN unsettled_since")
    shutil.copytree(
        ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    made = alembic(empty_database_url, "revision", *arguments, "-m", "two columns", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    [path] = tmp_path.glob("alembic/versions/*_two_columns.py")
    assert ("op.add_column" in path.read_text()) is bool(arguments)
    for command_line in (["check"], ["format", "--check"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *command_line, str(path)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout
    upgraded = alembic(empty_database_url, "upgrade", "head", folder=tmp_path)
    assert upgraded.returncode == 0, upgraded.stderr
    if arguments:
        upgraded_again = alembic(empty_database_url, "check", folder=tmp_path)
        assert "No new upgrade operations detected" in upgraded_again.stdout
