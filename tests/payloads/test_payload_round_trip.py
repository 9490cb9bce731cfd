"""Exports of compressed payloads are ingested again, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from hypothesis import given, settings

from observatory_storage import PayloadsConfig, PostgresConfig, StorageConfig, StoragePool
from observatory_storage.tables import PAYLOAD_FRAMES
from tests.otlp.generated import requests
from tests.otlp.stored import comes_back
from tests.otlp.test_round_trip import QUICK


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    """A pool whose writers move all large values to frames."""
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        payloads=PayloadsConfig(mode="compressed", threshold_bytes=0),
    )
    with StoragePool(config) as pool:
        yield pool


def test_requests_are_exported_unchanged_and_are_idempotent(compressed: StoragePool) -> None:
    frames = 0

    @settings(QUICK, max_examples=12)
    @given(requests("traces", every_field=True))
    def check(message: Message) -> None:
        nonlocal frames
        comes_back(compressed, "traces", message)
        with compressed.engine.connect() as connection:
            counting = sa.select(sa.func.count()).select_from(PAYLOAD_FRAMES.table)
            frames += connection.scalar(counting) or 0

    check()
    assert frames > 0
