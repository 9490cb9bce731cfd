"""The migrations: the same schema as the models', once, whole, and away again without residue."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from observatory_embedded import EmbeddedPostgres
from observatory_storage import migrate
from observatory_storage.errors import ConnectionLost, MigrationError, StorageError
from observatory_storage.layout import PARTITIONED, Partitions
from observatory_storage.models import Base
from observatory_storage.pool import StoragePool
from observatory_storage.tables import TABLES
from observatory_storage.writers import CopyWriter
from tests.catalog import DEFINITIONS, definitions, engine_for, everything

ROOT = Path(__file__).resolve().parent.parent
# All of this package, the oldest first.
REVISIONS = [script.revision for script in ScriptDirectory(ROOT / "alembic").walk_revisions()][::-1]
# Quoting matters in it, and a test that forgets the schema finds nothing.
ODD = 'Obs: "50%"'


def test_migrated_tables_are_defined_as_the_models_are(empty: sa.Engine) -> None:
    migrate.upgrade(empty, "migrated")
    with empty.execution_options(schema_translate_map={None: "modelled"}).begin() as connection:
        connection.execute(sa.schema.CreateSchema("modelled"))
        Base.metadata.create_all(connection)
        # SQLAlchemy 2.0 has no storage parameters of tables: the migration alone sets them.
        connection.exec_driver_sql(
            "ALTER TABLE modelled.traces SET (fillfactor = 70,"
            " autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
        )
    found, expected = definitions(empty, "migrated"), definitions(empty, "modelled")
    # Nor has it views.
    views = [table for table in found["tables"] if "'v'" in table]
    assert [view.partition(",")[0] for view in views] == [
        "('log_payload_previews'",
        "('payload_previews'",
    ]
    found["tables"] = [table for table in found["tables"] if table not in views]
    for kind in DEFINITIONS:
        assert found[kind] == expected[kind], kind
    sequences = [table for table in found["tables"] if "'S'" in table]
    assert len(found["tables"]) == len(Base.metadata.tables) + len(sequences)
    assert found["triggers"] == []


@pytest.mark.parametrize("schema", ["public", ODD])
def test_alembic_finds_no_difference(empty: sa.Engine, schema: str) -> None:
    migrate.upgrade(empty, schema)
    partitions = Partitions(empty, schema)
    for table in PARTITIONED:
        partitions.ensure(table, [datetime(2024, 5, 17, tzinfo=UTC), datetime.now(UTC)])
    with empty.connect() as connection:
        options = migrate.comparison(connection, schema)
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
        connection.exec_driver_sql(f"ALTER TABLE {quoted}.logs DROP COLUMN event_name")
        connection.exec_driver_sql(
            f"ALTER TABLE {quoted}.traces ALTER COLUMN status SET DEFAULT 'ok'"
        )
        different = {str(difference) for difference in compare_metadata(context, Base.metadata)}
        assert any("'add_column'" in difference for difference in different)
        assert any("'modify_default'" in difference for difference in different)


def test_the_order_of_the_columns_does_not_matter(empty: sa.Engine) -> None:
    # A newcomer puts a column of a model where it belongs; the migration adds it at the end.
    migrate.upgrade(empty)
    before = definitions(empty, "public")
    with empty.begin() as connection:
        connection.exec_driver_sql(
            'ALTER TABLE logs DROP COLUMN scope_name, ADD COLUMN scope_name text COLLATE "C"'
        )
    assert definitions(empty, "public") == before


def test_a_schema_that_is_older_than_the_package_is_named_as_such(pool: StoragePool) -> None:
    span: dict[str, object] = {"trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "a" * 16}
    span |= {"name": "chat", "service_name": "s", "start_time": datetime.now(UTC)}
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trace_spans DROP COLUMN environment")
    told = "schema is older than this version .* run `observatory-storage migrate`"
    with pytest.raises(StorageError, match=told):
        CopyWriter(pool).write_spans([span])
    with pool.unit_of_work() as uow, pytest.raises(StorageError, match=told):
        uow.traces.list_spans()
    migrate.downgrade(pool.engine)
    with pool.unit_of_work() as uow, pytest.raises(StorageError, match=told):
        uow.traces.list_spans()


def test_large_columns_are_compressed_with_lz4(empty: sa.Engine) -> None:
    with empty.connect() as connection:
        known = connection.scalar(
            sa.text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
        )
        if "lz4" not in known:
            pytest.skip("this server was built without lz4")
    migrate.upgrade(empty)
    with empty.connect() as connection:
        compression = connection.execute(
            sa.text(
                "SELECT DISTINCT attcompression::text FROM pg_attribute"
                " WHERE attrelid::regclass::text = ANY (:tables)"
                " AND atttypid = 'jsonb'::regtype AND NOT attisdropped"
                " AND attname <> 'payload_digests'"  # which is small
            ),
            {"tables": list(TABLES)},
        ).scalars()
        assert list(compression) == ["l"]


@pytest.mark.parametrize("schema", ["public", ODD])
def test_upgrade_downgrade_upgrade_leaves_no_residue(empty: sa.Engine, schema: str) -> None:
    before = everything(empty)
    migrate.upgrade(empty, schema)
    first = definitions(empty, schema)
    partitions = Partitions(empty, schema)
    for table in PARTITIONED:
        partitions.ensure(
            table, [datetime(2024, 5, 17, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
        )
    migrate.downgrade(empty, schema)
    assert everything(empty) == before
    assert migrate.current(empty, schema) is None
    migrate.upgrade(empty, schema)
    assert definitions(empty, schema) == first


def test_a_downgrade_keeps_what_it_did_not_make(empty: sa.Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA given")
    migrate.upgrade(empty, "given")
    migrate.upgrade(empty, "made")
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE made.application (id int)")
    migrate.downgrade(empty, "given")
    migrate.downgrade(empty, "made")
    inspector = sa.inspect(empty)
    assert inspector.get_table_names("given") == []
    assert inspector.get_table_names("made") == ["application"]
    assert inspector.has_schema("given")


def test_each_schema_has_its_own_revision(empty: sa.Engine) -> None:
    assert migrate.pending(empty, "one") == REVISIONS
    migrate.upgrade(empty, "one")
    assert migrate.current(empty, "one") == migrate.head()
    assert migrate.pending(empty, "one") == []
    assert migrate.current(empty, "two") is None
    assert migrate.current(empty) is None
    assert not sa.inspect(empty).has_schema("two")


def test_the_search_path_does_not_matter(empty: sa.Engine) -> None:
    with empty.begin() as connection:
        name = connection.scalar(sa.text("SELECT quote_ident(current_database())"))
        connection.exec_driver_sql("CREATE SCHEMA elsewhere")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path TO elsewhere")
    before = everything(empty)
    migrate.upgrade(empty)
    inspector = sa.inspect(empty)
    tables = {*Base.metadata.tables, "observatory_version"}
    assert set(inspector.get_table_names("public")) == tables
    assert inspector.get_table_names("elsewhere") == []
    migrate.downgrade(empty)
    assert everything(empty) == before


def test_a_failing_migration_leaves_nothing_behind(empty: sa.Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE public.logs (id int)")
    before = everything(empty)
    with pytest.raises(MigrationError, match='"logs" already exists') as caught:
        migrate.upgrade(empty)
    assert isinstance(caught.value.__cause__, sa.exc.ProgrammingError)
    assert not caught.value.retryable
    assert everything(empty) == before


def test_a_newer_revision_is_refused_by_name(empty: sa.Engine) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("UPDATE public.observatory_version SET version_num = 'f00d'")
    refused: list[Callable[[], object]] = [
        lambda: migrate.upgrade(empty),
        lambda: migrate.downgrade(empty),
        lambda: migrate.pending(empty),
    ]
    for call in refused:
        with pytest.raises(MigrationError, match=r"'public' is at revision 'f00d'.*newer version"):
            call()
    assert migrate.current(empty) == "f00d"


def test_an_unknown_target_is_an_error(empty: sa.Engine) -> None:
    with pytest.raises(MigrationError, match="nonsense"):
        migrate.upgrade(empty, revision="nonsense")


def test_without_a_server_the_connection_is_at_fault() -> None:
    engine = engine_for("postgresql://postgres@127.0.0.1:1/none")
    for call in (migrate.upgrade, migrate.downgrade, migrate.current, migrate.pending):
        with pytest.raises(ConnectionLost) as caught:
            call(engine)
        assert isinstance(caught.value.__cause__, sa.exc.OperationalError)


def test_missing_scripts_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "package" / "migrate.py"))
    with pytest.raises(MigrationError, match=r"migrations are missing.*package"):
        migrate.head()


def test_a_role_that_owns_only_its_schema_can_migrate(embedded_server: EmbeddedPostgres) -> None:
    admin = engine_for(embedded_server.url)
    with admin.begin() as connection:
        database = connection.scalar(sa.text("SELECT quote_ident(current_database())"))
        connection.exec_driver_sql("CREATE ROLE app LOGIN PASSWORD 'app'")
        connection.exec_driver_sql(f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC")
        connection.exec_driver_sql("CREATE SCHEMA obs AUTHORIZATION app")
    app = sa.create_engine(admin.url.set(username="app", password="app"), poolclass=NullPool)
    migrate.upgrade(app, "obs")
    assert migrate.current(app, "obs") == migrate.head()
    with pytest.raises(MigrationError, match="permission denied for database"):
        migrate.upgrade(app, "not_there")
    migrate.downgrade(app, "obs")
    assert sa.inspect(admin).get_table_names("obs") == []


def test_an_error_of_the_script_itself_is_a_migration_error(
    empty: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "alembic"
    shutil.copytree(ROOT / "alembic", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    newest = REVISIONS[-1]
    broken = f"revision, down_revision = 'broken', {newest!r}\ndef upgrade(): 1 / 0\n"
    (scripts / "versions" / "broken.py").write_text(broken)
    monkeypatch.setattr(migrate, "_location", lambda: scripts)
    before = everything(empty)
    with pytest.raises(MigrationError, match="ZeroDivisionError") as caught:
        migrate.upgrade(empty)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert everything(empty) == before
    assert migrate.pending(empty) == [*REVISIONS, "broken"]
    migrate.upgrade(empty, revision=newest)
    assert migrate.pending(empty) == ["broken"]
