"""Values of unusual forms come back as they do from rows, and previews are their beginning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.payloads import preview_of
from tests.payloads.invariants import check_payloads, whole_rows
from tests.payloads.test_writing import LONG, pool_in
from tests.writers.helpers import a_span, empty, event


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    with pool_in(database_url, "compressed") as pool:
        yield pool


ODD = {
    "empty key": {"": LONG, "a": {"": LONG}},
    "not ASCII": {"ключ 🔑": "é漢🎉" * 500, "e": "🎉" * 2000},
    "escapes": {"t": '"\\\n\t\x01/' * 400, "b": "\\" * 3000, "u": "\u2028\x7f" * 900},
    "surrogates": {"t": "\ud83d" * 900, "k\udc00": "x" * 2000},
    "nul": {"t": "\x00a" * 900},
    "numbers": {"n": [10**40, -(10**30), 1.0, 1, 0.1, 1.5e15, 123456.789e-3] * 40},
    "NaN": {"n": [float("nan"), float("inf"), None, True] * 100},
    "times": {"n": [datetime(2026, 1, 1, tzinfo=UTC)] * 60, "b": [b"bytes"] * 200},
    "deep": {"n": json.loads("[" * 200 + '"' + LONG + '"' + "]" * 200)},
    "many": {f"key{n}": "v" * 300 for n in range(200)},
    "huge": {"image": "base64" * 700_000, "other": ["x" * 3_000_000]},
    "spaces": {"t": " " * 3000, "n": "no_blank" * 400, "late": "x" * 1299 + " " + "y" * 900},
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("method", ["copy", "insert"])
def test_odd_values(pool: StoragePool, compressed: StoragePool, name: str, method: Any) -> None:
    spans = [
        a_span(1, number, attributes=ODD[name], events=[event("e", attributes=ODD[name])])
        for number in range(1, 4)
    ]
    CopyWriter(pool, method=method).write_spans(spans)
    expected = whole_rows(pool)
    empty(pool)
    CopyWriter(compressed, method=method).write_spans(spans)
    assert whole_rows(compressed) == expected
    assert check_payloads(compressed) >= 6


@pytest.mark.parametrize("value", ["é" * 2000, "x" * 99, "x" * 101 + " " + "y" * 2000, "🎉 " * 900])
def test_previews_are_the_beginning(value: str) -> None:
    expected = value if len(value) <= 100 else value[:100] + "…"
    assert preview_of(json.dumps(value).encode()) == expected
    assert preview_of(json.dumps(value, ensure_ascii=False).encode()) == expected
    listed = json.dumps([value], ensure_ascii=False)
    expected = listed if len(listed) <= 100 else listed[:100] + "…"
    assert preview_of(listed.encode()) == expected
