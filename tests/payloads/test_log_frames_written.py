"""Log records leave their large values in frames, by every way of writing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    LogWriter,
    StoragePool,
    WriterConfig,
    export_logs,
    ingest_logs,
)
from observatory_storage.config import PayloadsConfig, PostgresConfig, StorageConfig
from observatory_storage.models import LogFrame
from observatory_storage.payloads import unpack
from tests.payloads.framed import START, a_text
from tests.payloads.logged import (
    a_record,
    check_logs,
    framed_logs,
    log_frame_count,
    records,
    stored_logs,
    whole_logs,
    write_logs,
)

Rows = list[dict[str, Any]]


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url), payloads=PayloadsConfig(mode="compressed")
    )
    with StoragePool(config) as pool:
        yield pool


def by_copy(pool: StoragePool, rows: Rows) -> None:
    CopyWriter(pool).write_logs(rows)


def by_insert(pool: StoragePool, rows: Rows) -> None:
    CopyWriter(pool, method="insert").write_logs(rows)


def buffered(pool: StoragePool, rows: Rows) -> None:
    with LogWriter(pool, WriterConfig(batch_size=7)) as writer:
        writer.write_logs(rows)


def in_a_unit_of_work(pool: StoragePool, rows: Rows) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_logs(rows)
        uow.commit()


WAYS = pytest.mark.parametrize("write", [by_copy, by_insert, buffered, in_a_unit_of_work])
Write = Callable[[StoragePool, Rows], None]


def flat(flushes: Iterable[Rows]) -> Rows:
    return [row for rows in flushes for row in rows]


@WAYS
def test_values_move_and_are_read_whole(compressed: StoragePool, write: Write) -> None:
    write(compressed, flat(records([1, 2, 3], 6)))
    assert framed_logs(compressed) == 18
    assert check_logs(compressed) == 18 + 9  # prompts, and the bodies of every other record
    compressed_rows = whole_logs(compressed)
    with compressed.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE logs, log_frames, payload_unindexed")
    write_logs(compressed, *records([1, 2, 3], 6), payloads="inline")
    assert framed_logs(compressed) == 0
    assert whole_logs(compressed) == compressed_rows


@WAYS
def test_records_that_are_sent_again_change_nothing(compressed: StoragePool, write: Write) -> None:
    first = flat(records([1, 2], 4))
    write(compressed, first)
    rows, stored, count = (
        whole_logs(compressed),
        stored_logs(compressed),
        log_frame_count(compressed),
    )
    changed = [{**row, "body_json": {"content": a_text(99)}} for row in first]
    write(compressed, changed)
    assert stored_logs(compressed) == stored
    assert log_frame_count(compressed) == count
    write(compressed, [*changed, a_record(3, 1), a_record(3, 2)])
    check_logs(compressed)
    assert framed_logs(compressed) == 10
    assert [row for row in whole_logs(compressed) if row["id"] < UUID(int=3000)] == rows


def test_of_two_equal_ids_in_a_batch_the_first_stays(compressed: StoragePool) -> None:
    row = a_record(1, 1)
    again = {**row, "body_json": {"content": a_text(5)}}
    by_copy(compressed, [row, again])
    assert check_logs(compressed) > 0
    (stored,) = whole_logs(compressed)
    assert "secret-1" in stored["body_json"]


def test_a_stream_moves_the_values_of_all_its_parts(compressed: StoragePool) -> None:
    rows = [
        {
            "id": UUID(int=n),
            "timestamp": START + timedelta(seconds=5 * n),
            "trace_id": f"{n // 10 + 1:032x}",
            "attributes": {"prompt": a_text(n)} if n % 3 == 0 else {"n": n},
        }
        for n in range(1, 2_501)
    ]
    # The first one makes the partitions, so the second one streams.
    by_copy(compressed, rows[:2])
    by_copy(compressed, rows[2:])
    assert framed_logs(compressed) == 833
    assert check_logs(compressed) == 833
    whole = [row["attributes"] for row in whole_logs(compressed)]
    assert whole[2] == f'{{"prompt":"{a_text(3)}"}}'


def test_a_frame_has_the_values_of_one_trace_and_hour(compressed: StoragePool) -> None:
    hour = timedelta(hours=1)
    rows = [a_record(trace, n, START + n * hour) for trace in (1, 2) for n in (1, 2, 3)]
    by_copy(compressed, [*rows, a_record(1, 4, START + hour)])
    assert log_frame_count(compressed) == 6
    check_logs(compressed)


def test_other_records_keep_their_values(compressed: StoragePool) -> None:
    text = a_text(1, 20_000)
    by_copy(
        compressed,
        [
            a_record(None, 1),
            a_record(1, 2, body=text, attributes={"n": list(range(2_000))}),
            a_record(1, 4, attributes={"user.id": "u" * 900, "metadata": {"user_id": "v" * 900}}),
        ],
    )
    assert framed_logs(compressed) == 0
    assert log_frame_count(compressed) == 0
    assert [row["body"] for row in whole_logs(compressed)][1] == text


def test_bodies_of_all_forms_come_back(compressed: StoragePool) -> None:
    bodies: list[Any] = [
        {"role": "user", "content": a_text(1), "n": 1.0},
        [{"role": "user", "content": a_text(2)}, {"n": 1}],
        [a_text(3), "a list of texts stays"],
        {"": a_text(4), "big": 10**30},
        {"parts": [{"text": "a" * 3_000, "number": 1e300}], "deep": {"a": {"b": a_text(5)}}},
        3.5,
        a_text(6),
    ]
    rows = [a_record(1, n + 1, body=None, body_json=body) for n, body in enumerate(bodies)]
    by_copy(compressed, rows)
    stored = {row["id"].int - 1001: row for row in stored_logs(compressed)}
    assert stored[0]["body_json"]["role"] == "user"
    assert stored[1]["body_json"].startswith('[{"role":"user","content":"')
    assert stored[2]["body_json"] == bodies[2]
    with compressed.unit_of_work() as uow:
        read: dict[int, Any] = {row.id.int - 1001: row.body_json for row in uow.logs.list()}
    assert [read[n] for n in range(len(bodies))] == bodies
    assert isinstance(read[0]["n"], float)
    check_logs(compressed)


def test_nothing_moves_unless_it_is_asked_for(pool: StoragePool) -> None:
    write_logs(pool, *records([1], 3), payloads="inline")
    with LogWriter(pool, WriterConfig(payloads="compressed")) as writer:
        writer.write_logs([a_record(2, 1)])
    assert [row["trace_id"].int for row in stored_logs(pool) if row["payload_frame"]] == [2]


def test_ingested_records_are_exported_as_they_came(compressed: StoragePool) -> None:
    by_copy(compressed, flat(records([1, 2], 3)))
    sent = list(export_logs(compressed))
    with compressed.unit_of_work() as uow:
        uow.traces.delete("1".zfill(32))
        uow.traces.delete("2".zfill(32))
        uow.commit()
    assert log_frame_count(compressed) == 0
    for request in sent:
        assert ingest_logs(compressed, request).rejected == []
    assert framed_logs(compressed) == 6
    assert list(export_logs(compressed)) == sent
    ingested = log_frame_count(compressed)
    for request in sent:
        ingest_logs(compressed, request)
    assert log_frame_count(compressed) == ingested
    check_logs(compressed)


def test_a_refused_record_costs_only_itself(compressed: StoragePool) -> None:
    rows = flat(records([1], 4))
    rows[2]["body_json"] = {"content": a_text(1) + "\x00"}
    buffered(compressed, rows)
    assert framed_logs(compressed) == 4
    check_logs(compressed)
    with compressed.unit_of_work() as uow:
        (third,) = uow.logs.list(start_time=rows[2]["timestamp"], end_time=rows[3]["timestamp"])
    assert third.body_json == {"content": a_text(1) + "\ufffd"}


def test_words_of_one_trace_are_stored_once(compressed: StoragePool) -> None:
    by_copy(compressed, flat(records([1], 8)))
    with compressed.engine.connect() as connection:
        (frame,) = connection.execute(sa.select(LogFrame.value_bytes, LogFrame.data)).all()
    assert len(frame.data) < frame.value_bytes / 4
    assert sum(len(each) for each in unpack(frame.data).values()) > 8
