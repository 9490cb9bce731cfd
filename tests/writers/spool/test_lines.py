"""The lines of the spool's files: a row reads back, whatever happens to the bytes beside it."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observatory_storage.writers.spool import line_format
from tests.rows.samples import LEAST, PREPARE
from tests.writers.helpers import START, a_span
from tests.writers.spool.spool_files import (
    EVENTS,
    drain,
    line_of,
    logs,
    prepared,
    spool_in,
)

AWKWARD: list[tuple[str, dict[str, Any]]] = [
    ("traces", {"trace_id": "text é\n", "attributes": {"n": 2**70, "f": 1e16, "z": -0.0}}),
    ("trace_spans", {"total_cost_usd": Decimal("0.1000000000000000000000001"), "ttft_ms": 5e-324}),
    ("trace_spans", {"events": EVENTS, "total_cost_usd": "1e-50", "start_ns": 999}),
    ("trace_spans", {"events": [], "links": [{"span_id": "", "attributes": {"a": "\u2028"}}]}),
    ("trace_events", {"position": 2**31 - 1, "otlp": {"flags": 1}}),
    ("metrics", {"description": "\\\"'\x7f", "unit": "", "otlp": {}}),
    (
        "metric_data_points",
        {"value": -0.0, "sum": 1.7976931348623157e308, "count": 2**63 - 1, "quantiles": []},
    ),
    ("metric_data_points", {"buckets": {"bounds": [0.1], "counts": [1, 2]}, "min": 1e16}),
    ("logs", {"timestamp": datetime(1, 1, 1, tzinfo=UTC), "body_json": None, "body": "\x00"}),
    ("logs", {"timestamp": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "body": ""}),
    ("logs", {"body_json": "text", "trace_flags": 2**32 - 1, "observed_timestamp": START}),
]


@pytest.mark.parametrize(("table", "values"), AWKWARD)
def test_a_row_reads_back_unchanged(table: str, values: dict[str, Any]) -> None:
    row = prepared(table, **values)
    line = line_of(row)
    (record,) = line_format.read(line)
    assert record == line_format.Record(len(line), row)
    assert record.row is not None
    assert list(map(type, record.row.values)) == list(map(type, row.values))
    assert repr(record.row) == repr(row)  # tells 1 from 1.0, and 0.0 from -0.0


@settings(deadline=None, max_examples=60)
@given(
    st.text(),
    st.datetimes(timezones=st.just(UTC)),
    st.integers(0, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(0, 10**50, places=30),
)
def test_any_value_comes_back(
    text: str, moment: datetime, count: int, number: float, cost: Decimal
) -> None:
    moment = moment.replace(fold=0)  # says nothing in UTC
    span = prepared("trace_spans", status_message=text, start_time=moment, total_cost_usd=cost)
    point = prepared("metric_data_points", count=count, value=number, timestamp=moment)
    for row in (span, point):
        (record,) = line_format.read(line_of(row))
        assert repr(record.row) == repr(row)


def test_a_lone_surrogate_is_repaired_as_the_database_would_have_it() -> None:
    span = prepared(
        "trace_spans", status_message="a\ud800", events=[{**EVENTS[0], "name": "\udfff"}]
    )
    row = span._replace(trace_text="\ud800")
    line, repairs = line_format.encode(row)
    (record,) = line_format.read(line)
    assert record.row is not None
    assert record.row.as_dict()["status_message"] == "a\N{REPLACEMENT CHARACTER}"
    assert record.row.as_dict()["events"][0]["name"] == "\N{REPLACEMENT CHARACTER}"
    assert record.row.trace_text == "\N{REPLACEMENT CHARACTER}"
    assert repairs == 3


def test_a_line_names_its_columns(tmp_path: Path) -> None:
    """So that a version with other columns can map them."""
    line = line_of(prepared("logs", body="hello"))
    renamed = line[line.index(b"{") : -1].replace(b'"severity_number"', b'"gone"')
    renamed = renamed.replace(b'"body"', b'"gone"').replace(b'"service_name"', b'"old_name"')
    spool = spool_in(tmp_path)
    (tmp_path / f"1{spool._ending}").write_bytes(framed(renamed))
    assert spool.adopt()
    (row,) = drain(spool)
    assert row.as_dict()["body"] is None
    assert row.as_dict()["service_name"] == "unknown_service"  # what a log without one has
    assert row.as_dict()["timestamp"] == LEAST["logs"]["timestamp"]


def framed(text: bytes) -> bytes:
    return b"%08x %d %b\n" % (zlib.crc32(text), len(text), text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"table":"of another version","values":{}}',
        b'{"table":"logs"}',
        b'{"table":"logs","values":{"id":5}}',
        b'{"table":"logs","values":{"timestamp":"tomorrow"}}',
        b'{"table":"trace_spans","values":{"total_cost_usd":"much"}}',
        b'{"table":["logs"],"values":{}}',
        b"[]",
        b"nothing",
    ],
)
def test_a_line_that_this_version_cannot_read_is_set_aside(text: bytes) -> None:
    good = line_of(prepared("logs"))
    first, second = line_format.read(framed(text) + good)
    assert (first.row, first.torn) == (None, False)
    assert second.row is not None


def test_a_torn_tail_is_cut_off_at_the_last_good_row(tmp_path: Path) -> None:
    """Whatever the length at which the file ends."""
    lines = [line_of(row) for row in logs("a", "b")]
    data = b"".join(lines)
    for length in range(len(data)):
        found = list(line_format.read(data[:length]))
        # Its line break is all that a row may lack.
        whole = (length >= len(lines[0]) - 1) + (length >= len(data) - 1)
        assert [one.row is not None for one in found if not one.torn] == [True] * whole
        at_end = length in (0, len(lines[0]) - 1, len(lines[0]), len(data) - 1)
        assert [one.torn for one in found].count(True) == (not at_end)


def test_a_changed_byte_costs_its_own_row_at_most() -> None:
    rows = logs("a", "b", "c")
    lines = [line_of(row) for row in rows]
    data = b"".join(lines)
    for at in range(len(lines[0]) - 1, len(lines[0]) + len(lines[1])):
        for change in (0x01, 0x80, data[at] ^ 0x0A):  # the last makes it a line break
            if not change:
                continue
            changed = bytearray(data)
            changed[at] ^= change
            found = list(line_format.read(bytes(changed)))
            alive = [one.row for one in found if one.row is not None]
            damaged = [one for one in found if one.row is None]
            of_the_row = len(lines[0]) <= at < len(lines[0]) + len(lines[1]) - 1
            assert alive == ([rows[0], rows[2]] if of_the_row else rows)
            assert bool(damaged) == of_the_row
            assert not any(one.torn for one in found)


def test_ids_of_any_class_are_written(tmp_path: Path) -> None:
    class Uuid(UUID):
        pass

    row = prepared("logs", id=uuid4())
    values = tuple(Uuid(str(v)) if isinstance(v, UUID) else v for v in row.values)
    (record,) = line_format.read(line_of(row._replace(values=values)))
    assert record.row == row


def test_spooled_spans_keep_their_events() -> None:
    for events in (None, [], EVENTS):
        row = PREPARE["trace_spans"](a_span(events=events))
        (record,) = line_format.read(line_of(row))
        assert record.row is not None
        assert record.row.events == row.events
        assert record.row.trace_text == row.trace_text != ""
