"""Migrations in a database that the application migrates too, or that is not as it should be."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from observatory_storage import migrate
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import MigrationError
from observatory_storage.models import Base
from observatory_storage.pool import StoragePool
from tests.servers import Server

# An application whose only revision is called as ours is.
ENVIRONMENT = """
from alembic import context
from sqlalchemy import NullPool, create_engine

url = context.config.get_main_option("sqlalchemy.url")
with create_engine(url, poolclass=NullPool).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        {before}
        context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("users", sa.Column("id", sa.Integer, primary_key=True))
"""
NESTED = "from tests.test_migrations_beside_others import migrate_storage; migrate_storage()"


def application(folder: Path, url: str, *, before: str = "pass") -> Config:
    """The Alembic configuration of an application in the folder."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENVIRONMENT.format(before=before))
    (folder / "versions" / "0001_users.py").write_text(REVISION)
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", driver_url(url).replace("%", "%%"))
    return config


def driver_url(url: str) -> str:
    return "postgresql+psycopg://" + url.partition("://")[2]


def migrate_storage() -> None:
    with StoragePool.from_env() as pool:
        pool.run_migrations()


@pytest.fixture
def empty(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    engine = sa.create_engine(driver_url(empty_database_url), poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def tables(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names("public"))


@pytest.mark.parametrize("storage_first", [True, False])
def test_the_package_and_the_application_migrate_the_same_schema(
    storage_first: bool, empty: sa.Engine, empty_database_url: str, tmp_path: Path
) -> None:
    config = application(tmp_path / "application", empty_database_url)
    if storage_first:
        migrate_storage()
    command.upgrade(config, "head")
    migrate_storage()
    assert {"users", *Base.metadata.tables} <= tables(empty)
    assert migrate.current(empty) == migrate.head()


def test_the_storage_is_migrated_from_the_environment_of_the_application(
    empty: sa.Engine, empty_database_url: str, tmp_path: Path
) -> None:
    config = application(tmp_path / "application", empty_database_url, before=NESTED)
    command.upgrade(config, "head")
    assert {"users", *Base.metadata.tables} <= tables(empty)


def make_former(engine: sa.Engine) -> None:
    """Have the schema look as an earlier release has left it."""
    migrate.upgrade(engine, revision="0001")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE alembic_version AS SELECT version_num FROM observatory_version"
        )
        connection.exec_driver_sql("DROP TABLE observatory_version")


def test_the_version_of_an_earlier_release_is_adopted(empty: sa.Engine) -> None:
    make_former(empty)
    assert migrate.current(empty) == "0001"
    migrate.upgrade(empty)
    assert migrate.current(empty) == migrate.head()
    assert "alembic_version" not in tables(empty)


def test_revisions_of_the_application_stay_when_a_version_is_adopted(empty: sa.Engine) -> None:
    make_former(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('f00d')")
    migrate.upgrade(empty)
    with empty.connect() as connection:
        left = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    assert left == ["f00d"]


def test_error_for_a_table_of_the_application_advises_another_schema(empty: sa.Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE logs (id int)")
    with pytest.raises(MigrationError, match=r'"logs" already exists.*DB_SCHEMA'):
        migrate.upgrade(empty)


def test_error_for_tables_that_are_missing_names_them(empty: sa.Engine) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("DROP TABLE logs CASCADE")
    with pytest.raises(MigrationError, match="lacks log_payload_previews, logs, observatory_logs"):
        migrate.upgrade(empty)


def test_a_database_that_is_not_in_utf8_is_refused(postgres_server: Server) -> None:
    name = f"latin_{secrets.token_hex(4)}"
    encoding = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc"
    with postgres_server.administration() as connection:
        connection.execute(f"CREATE DATABASE {name} {encoding}")
    try:
        config = PostgresConfig.from_url(postgres_server.url, database=name)
        with StoragePool(StorageConfig(postgres=config)) as pool:
            with pytest.raises(MigrationError, match=r"encoding LATIN1.*ENCODING 'UTF8'"):
                pool.run_migrations()
            with pytest.raises(MigrationError, match="encoding LATIN1"):
                migrate.pending(pool.engine)
    finally:
        with postgres_server.administration() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
