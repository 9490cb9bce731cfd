"""Entries say of rows exactly what is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from observatory_storage.streams.chunks import ChunkEncoder, decode_chunk
from observatory_storage.streams.streamed_signals import STREAMED
from tests.writers.awkward import CASES

NAMES = [name for name in STREAMED if name != "traces"]


@pytest.mark.parametrize("payloads", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_awkward_rows_are_read_as_they_are_written(name: str, payloads: bool) -> None:
    signal = STREAMED[name]
    _, make, _, prepare = CASES[signal.table.name]
    rows = [prepare(row).with_clean_text() for row in make()]
    encoder = ChunkEncoder(signal, "test", payloads=payloads)
    found: list[Any] = []
    for content, count in encoder.chunks([row.values for row in rows], 0):
        chunk = decode_chunk(signal, content)
        assert chunk is not None
        assert len(chunk.rows) == count <= 100
        found += chunk.rows
    published = set(signal.columns(payloads=payloads))
    left_out = 0
    for row, read in zip(rows, found, strict=True):
        told = {key: value for key, value in row.as_dict().items() if key in published}
        if read.keys() != published:
            left_out += 1
            assert read.keys() == published - signal.payload
            told = {key: value for key, value in told.items() if key in read}
        assert {key: repr(value) for key, value in read.items()} == {
            key: repr(value) for key, value in told.items()
        }
    assert (left_out > 0) == payloads  # some are too large


def test_entries_are_numbered_and_the_first_tells_what_was_lost() -> None:
    signal = STREAMED["logs"]
    _, make, _, prepare = CASES["logs"]
    values = [prepare(make()[0]).values] * 250
    encoder = ChunkEncoder(signal, "p", payloads=False)
    chunks = [decode_chunk(signal, content) for content, _ in encoder.chunks(values, 7)]
    assert [(c.publisher, c.sequence, c.lost, len(c.rows)) for c in chunks if c] == [
        ("p", 1, 7, 100),
        ("p", 2, 0, 100),
        ("p", 3, 0, 50),
    ]


def test_columns_of_other_versions_are_understood() -> None:
    signal = STREAMED["logs"]
    columns = ["id", "timestamp", "of_a_later_version"]
    content = msgspec.msgpack.encode([1, "p", 1, 0, columns, [[b"1" * 16, None, "x"]]])
    chunk = decode_chunk(signal, content)
    assert chunk is not None
    (row,) = chunk.rows
    assert row["service_name"] is None
    assert "body" not in row


def test_entries_of_a_later_form_are_recognized() -> None:
    assert decode_chunk(STREAMED["logs"], msgspec.msgpack.encode([2, "p", 1, 0, "x"])) is None
