"""A stream of log records whose large values are stored in frames."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import Not, Prefix, StoragePool
from tests.payloads.framed import START, a_text
from tests.payloads.logged import a_record, framed_logs, write_logs
from tests.streams.conftest import OpenPool
from tests.streams.live import all_of, flushed

_LONG = a_text(900)


def written(pool: StoragePool) -> list[dict[str, Any]]:
    """Publish records, of which most have a frame; the words stand at the ends of values."""
    rows = [
        a_record(1, 1, body_json={"content": f"{_LONG} needle"}),
        a_record(1, 2, body="a needle in text"),
        a_record(1, 3, attributes={"gen_ai.input.messages": f"{_LONG} thimble", "turn": 3}),
        a_record(2, 4, attributes={"tag": _LONG}),
        a_record(2, 5, body_json=[_LONG, "needle"]),
        a_record(None, 6, attributes={"tag": _LONG, "turn": 3}),
    ]
    write_logs(pool, rows[:2], rows[2:])
    flushed(pool)
    assert framed_logs(pool) == 5
    return rows


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"text": "needle"}, [1001, 1002, 2005]),
        ({"text": "thimble", "attributes": {"turn": 3}}, [1003]),
        ({"text": "needle", "service_name": "nobody"}, []),
        ({"contains": "himbl", "start_time": START - timedelta(days=1)}, [1003]),
        ({"attributes": {"tag": _LONG}}, [2004, 6]),
        ({"attributes": {"tag": Prefix(_LONG[:90])}, "trace_id": Not("0" * 31 + "1")}, [2004, 6]),
    ],
    ids=str,
)
def test_conditions_hold_for_values_in_frames(
    live: StoragePool, given: dict[str, Any], expected: list[int]
) -> None:
    written(live)
    assert [row.id.int for row in all_of(live, "logs", **given)] == expected


def test_payloads_are_published_whole(open_pool: OpenPool, redis_url: str) -> None:
    pool = open_pool(redis_url, payloads=True)
    rows = [
        a_record(1, n, attributes={"tag": a_text(n)}, body_json=body)
        for n, body in enumerate(({"role": "user", "content": _LONG}, [{"a": _LONG}], "text"), 1)
    ]
    write_logs(pool, rows)
    flushed(pool)
    assert framed_logs(pool) == 3
    for row, given in zip(all_of(pool, "logs"), rows, strict=True):
        assert (row.attributes, row.body_json) == (given["attributes"], given["body_json"])
        assert "payload_frame" not in row
