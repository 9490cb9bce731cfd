"""The tail of a pool while its address leads to a standby, as during a failover by DNS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from observatory_storage import CopyWriter, PostgresConfig, ReadOnly, StorageError, StoragePool
from tests.replication.pairs import Address, Database
from tests.repositories.samples import a_log
from tests.repositories.test_tail import others_have_ended


@pytest.fixture
def address(database: Database, tmp_path: Path) -> Address:
    return Address(tmp_path / "address", database)


@pytest.fixture
def moving(database: Database, address: Address) -> Iterator[StoragePool]:
    """A pool that connects to where the address leads."""
    with database.pool(postgres=PostgresConfig.from_url(address.url)) as pool:
        yield pool


def test_a_tail_waits_until_its_address_leads_to_the_primary_again(
    moving: StoragePool, database: Database, address: Address, pool: StoragePool
) -> None:
    errors: list[StorageError] = []

    def note(error: StorageError) -> None:
        errors.append(error)
        if len(errors) == 3:
            address.lead_to(database.url)

    address.lead_to(database.url)
    pages = moving.tail("logs", poll_interval=0.05, on_error=note)
    next(pages)
    address.lead_to(database.read_url)
    moving.engine.dispose()  # the server of its connections has gone away
    CopyWriter(pool).write_logs([a_log(1)])
    others_have_ended(pool)
    found = [record.id.int for record in next(page for page in pages if page.rows)]
    assert found == [1]
    assert [type(error) for error in errors] == [ReadOnly] * 3
    assert "cannot follow rows on a standby" in str(errors[0])


def test_a_tail_whose_address_has_never_led_to_a_primary_fails(
    moving: StoragePool, database: Database, address: Address
) -> None:
    address.lead_to(database.read_url)
    with pytest.raises(StorageError, match="cannot follow rows on a standby"):
        next(moving.tail("logs", timeout=30))
