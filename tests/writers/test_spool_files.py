"""The spool's files: what goes in comes out, whatever happens to the files in between."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observatory_storage.errors import StorageError
from observatory_storage.rows import Row
from observatory_storage.tables import TABLES
from observatory_storage.writers.spool import line_format
from observatory_storage.writers.spool.files import Spool
from tests.rows.samples import LEAST, PREPARE
from tests.writers.helpers import START, a_span, fork, wait_for

MIB = 1024 * 1024
EVENTS = [
    {"name": "first", "timestamp": START, "attributes": {"a": [1, {"b": None}]}},
    {"name": "next\n", "timestamp": START.replace(microsecond=10), "timestamp_ns": 999},
]
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


def prepared(table: str, **given: Any) -> Row:
    return PREPARE[table](LEAST[table] | given)


def logs(*bodies: str) -> list[Row]:
    return [prepared("logs", body=body) for body in bodies]


def bodies(rows: list[Row]) -> list[Any]:
    return [row.values[TABLES["logs"].position["body"]] for row in rows]


def spool_in(directory: Path, max_bytes: int = MIB, target: str = "db/public") -> Spool:
    spool = Spool(directory, target, max_bytes)
    spool.prepare()
    return spool


def drain(spool: Spool, at_once: int = 1000) -> list[Row]:
    """All rows of the spool, which is empty afterwards."""
    found = []
    while (chunk := spool.read(at_once)) is not None:
        found += chunk.rows
        spool.done(chunk)
    return found


def names(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir() if path.name != ".lock")


def the_file(directory: Path) -> Path:
    (path,) = directory.glob("*.spool")
    return path


def line_of(row: Row) -> bytes:
    line, repairs = line_format.encode(row)
    assert repairs == 0
    return line


# -- rows as lines -------------------------------------------------------------------------------


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


# -- damage --------------------------------------------------------------------------------------


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


def test_a_damaged_file_is_kept_and_its_good_rows_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("a", "b", "c"))
    spool.release()
    path = the_file(tmp_path)
    data = path.read_bytes().replace(b'"b"', b'"x"')
    path.write_bytes(data + b"deadbeef 50 {torn")
    assert spool.adopt()
    with caplog.at_level(logging.WARNING):
        chunk = spool.read(1000)
        assert chunk is not None
        assert (bodies(chunk.rows), chunk.damaged, chunk.own) == (["a", "c"], 1, False)
        spool.done(chunk)
    assert spool.empty
    assert names(tmp_path) == [".corrupt"]
    assert "1 lines could not be read; kept as" in caplog.text
    assert "ends within a row" in caplog.text
    assert not spool.adopt()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"1234abcd 7", b"\n\n"])
def test_a_file_without_rows_does_not_stand_in_the_way(tmp_path: Path, content: bytes) -> None:
    spool = spool_in(tmp_path)
    (tmp_path / f"0{spool._ending}").write_bytes(content)
    (tmp_path / f"1{spool._ending}").write_bytes(line_of(*logs("a")))
    assert spool.adopt()
    assert bodies(drain(spool)) == ["a"]
    assert spool.empty


# -- files ---------------------------------------------------------------------------------------


def test_rows_come_out_in_the_order_in_which_they_went_in(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, 100 * MIB)
    large = "x" * (5 * MIB)
    spool.append(logs("a", large))
    spool.append(logs("b", large))
    spool.append(logs("c"))
    assert names(tmp_path) == [".spool"] * 2
    first = spool.read(1)
    assert first is not None
    spool.done(first)
    spool.append(logs("d"))
    assert [body[:1] for body in bodies(first.rows + drain(spool, 2))] == list("axbxcd")
    assert names(tmp_path) == []
    spool.append(logs("e"))
    assert bodies(drain(spool)) == ["e"]


def test_rows_stay_in_the_spool_until_they_are_done(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("a", "b"))
    chunk = spool.read(1)
    assert chunk is not None
    assert chunk == spool.read(1)
    assert bodies(chunk.rows) == ["a"]
    spool.release()
    assert spool.empty
    spool.done(chunk)  # too late: the file is not this spool's any more
    assert spool.adopt()
    assert bodies(drain(spool)) == ["a", "b"]


def test_events_count_as_rows(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append([prepared("trace_spans", events=EVENTS) for _ in range(4)])
    chunk = spool.read(5)
    assert chunk is not None
    assert len(chunk.rows) == 2


def test_files_and_directory_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "here"
    old = os.umask(0)
    try:
        spool = spool_in(directory)
        spool.append(logs("a"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_rows_are_synced_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file each time, and its directory when the file is new."""
    spool = spool_in(tmp_path)
    synced: list[tuple[bool, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    first, second = logs("a"), logs("b")
    spool.append(first)
    spool.append(second)
    sizes = [len(line_of(*rows)) for rows in (first, second)]
    files = [size for is_directory, size in synced if not is_directory]
    assert files == [sizes[0], sum(sizes)]
    assert [is_directory for is_directory, _ in synced] == [False, True, False]


@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, earlier: int
) -> None:
    spool = spool_in(tmp_path)
    for _ in range(earlier):
        spool.append(logs("before"))

    real = os.pwrite

    def fail(descriptor: int, data: bytes = b"", position: int = 0) -> int:
        if data:
            real(descriptor, data[:10], position)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageError, match="cannot take rows: No space left") as caught:
            spool.append(logs("lost"))
    assert caught.value.retryable
    assert spool.empty is (earlier == 0)
    spool.append(logs("after"))
    assert bodies(drain(spool)) == ["before"] * earlier + ["after"]
    assert names(tmp_path) == []


def test_the_directory_is_bounded_for_all_who_share_it(tmp_path: Path) -> None:
    size = len(line_of(*logs("a")))
    one, another = (spool_in(tmp_path, 3 * size) for _ in range(2))
    one.append(logs("a"))
    another.append(logs("b"))
    with pytest.raises(StorageError, match=rf"is full: {2 * size} .* spool_max_bytes={3 * size}"):
        one.append(logs("c", "d"))
    one.append(logs("c"))
    for spool in (one, another):
        with pytest.raises(StorageError, match="is full"):
            spool.append(logs("e"))
    assert bodies(drain(one)) == ["a", "c"]
    another.append(logs("e"))
    assert bodies(drain(another)) == ["b", "e"]


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/spool cannot be used: Not a directory"):
        spool_in(tmp_path / "file" / "spool")


def test_no_rows_are_appended_to_a_removed_file(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("a"))
    the_file(tmp_path).unlink()
    spool.append(logs("b"))
    the_file(tmp_path)
    assert bodies(drain(spool)) == ["a", "b"]  # it still had it open


# -- owners --------------------------------------------------------------------------------------


def test_files_of_a_living_owner_are_left_alone(tmp_path: Path) -> None:
    one, another = spool_in(tmp_path), spool_in(tmp_path)
    one.append(logs("a"))
    assert not another.adopt()
    one.release()
    assert another.adopt()
    assert not one.adopt()
    another.append(logs("b"))
    assert bodies(drain(another)) == ["a", "b"]


def test_files_of_another_database_or_schema_are_left_alone(tmp_path: Path) -> None:
    one = spool_in(tmp_path, target="db/public")
    one.append(logs("a"))
    one.release()
    assert not spool_in(tmp_path, target="db/tenant").adopt()
    assert one.adopt()


def test_links_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "spool"
    spool = spool_in(directory)
    (tmp_path / "elsewhere").write_bytes(line_of(*logs("a")))
    (directory / f"0{spool._ending}").symlink_to(tmp_path / "elsewhere")
    (directory / f"1{spool._ending}").mkdir()
    os.mkfifo(directory / f"2{spool._ending}")
    assert not spool.adopt()
    assert "cannot be adopted" in caplog.text


WRITING = """
import os, signal, sys
from pathlib import Path
from observatory_storage.rows import prepare_log
from observatory_storage.writers.spool.files import Spool
from datetime import UTC, datetime

spool = Spool(Path(sys.argv[1]), "db/public", 2**20)
spool.prepare()
for n in range(3):
    spool.append([prepare_log({"timestamp": datetime.now(UTC), "body": f"{n}"})])
print(flush=True)
sys.stdin.readline()
spool.append([prepare_log({"timestamp": datetime.now(UTC), "body": "last"})])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_is_adopted_once_its_owner_was_killed(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not spool.adopt()
        process.communicate(b"\n", timeout=30)
    assert process.returncode == -9
    assert spool.adopt()
    assert bodies(drain(spool)) == ["0", "1", "2", "last"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_leaves_the_files_to_its_parent(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(logs("parent"))

    def in_child() -> None:
        spool.abandon()
        assert spool.empty
        assert not spool.adopt()  # the parent is alive
        spool.append(logs("child"))

    wait_for(fork(in_child))
    assert spool.adopt()
    assert sorted(bodies(drain(spool))) == ["child", "parent"]


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
