"""What a server refuses without saying why is told apart by asking it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import CopyWriter, LogWriter, PostgresConfig, StorageConfig, StoragePool
from observatory_storage.errors import BatchError, StorageError, ValidationError
from tests import citus

AT = datetime(2026, 3, 4, 12, tzinfo=UTC)
# As a proxy or an extension reports a violated check: without the constraint's name.
NAMELESS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.body = 'refused' THEN
        RAISE EXCEPTION 'new row violates a check' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def log(body: str) -> dict[str, Any]:
    return {"timestamp": AT, "service_name": "service", "body": body}


@citus.not_there("tables with shards have no triggers")
def test_violated_check_without_a_name_costs_its_row_alone(
    pool: StoragePool, database_url: str
) -> None:
    CopyWriter(pool).write_logs([log("first")])
    with psycopg.connect(database_url) as connection:
        connection.execute(NAMELESS)
    writer = LogWriter(pool)
    for body in ("good", "refused", "also good"):
        writer.write_log(log(body))
    with pytest.raises(BatchError) as caught:
        writer.flush()
    assert [one.row["body"] for one in caught.value.rejected] == ["refused"]
    with pytest.raises(ValidationError, match="violates a check"):
        CopyWriter(pool).write_logs([log("refused")])
    with pool.unit_of_work() as uow:
        assert {one.body for one in uow.logs.list()} == {"first", "good", "also good"}


def test_role_that_owns_nothing_writes_into_partitions_made_ahead(
    embedded_server: EmbeddedPostgres,
) -> None:
    owner = PostgresConfig.from_url(embedded_server.url)
    with StoragePool(StorageConfig(postgres=owner)) as pool:
        pool.run_migrations()
        pool.partitions.ensure("logs", [AT])
    with psycopg.connect(embedded_server.url) as connection:
        connection.execute("CREATE ROLE telemetry LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA public TO telemetry")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO telemetry")
    config = PostgresConfig.from_url(embedded_server.url, username="telemetry")
    with StoragePool(StorageConfig(postgres=config)) as pool:
        assert CopyWriter(pool).write_logs([log("written")]) == 1
        later = {**log("too late"), "timestamp": AT.replace(year=2031)}
        with pytest.raises(StorageError, match=r"logs has no partition for 2031.*only the owner"):
            CopyWriter(pool).write_logs([later])
