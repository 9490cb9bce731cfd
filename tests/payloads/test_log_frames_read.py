"""Records with values in frames are read as if they had them in their rows."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import (
    DamagedFrame,
    LogRecord,
    NotFound,
    StoragePool,
    export_logs,
    open_payloads,
)
from observatory_storage.lifecycle.payload_conversion import convert_payloads
from observatory_storage.models import LogFrame
from tests.commands import Run, runner
from tests.payloads.framed import START, a_text, a_turn, write
from tests.payloads.logged import DETAILS, a_record, check_logs, records, stored_logs, write_logs
from tests.repositories.samples import statements
from tests.writers.helpers import span_id, trace_id


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capfd, tmp_path)


@pytest.fixture(autouse=True)
def written(pool: StoragePool) -> None:
    write_logs(pool, *records([1, 2], 3))
    write_logs(pool, [a_record(3, 1)], payloads="inline")


def prompt_of(row: Any) -> Any:
    return row.attributes["gen_ai.input.messages"][0]["parts"][0]["content"]


def test_every_query_returns_whole_values(pool: StoragePool) -> None:
    last = START + timedelta(seconds=3)
    with pool.unit_of_work() as uow:
        logs = uow.logs
        found = [
            logs.get(UUID(int=1003)),
            logs.get(UUID(int=1003), last),
            logs.list(trace_id=trace_id(1))[0],
            logs.list(event_name="cart.filled")[1],
            *[row for row in logs.iterate(batch_size=2) if row.id.int == 1003],
            logs.get_by_trace(trace_id(1))[-1],
            logs.search_text("secret-1", start_time=last)[0],
            logs.search_text("secret-1", order="rank", start_time=last)[0],
            next(row for row in logs.tail() if row.id.int == 1003),
        ]
    for row in found:
        assert prompt_of(row) == a_text(101)
        assert row.body_json == {"role": "assistant", "content": "secret-1 " + a_text(3)}
        assert row.to_dict()["body_json"] == row.body_json
        assert (row.payload_frame, row.payload_digests) == (None, None)


def test_a_page_takes_one_more_statement_only_if_it_has_frames(pool: StoragePool) -> None:
    def count(trace: int) -> int:
        with pool.unit_of_work() as uow, statements(pool.engine) as sent:
            uow.logs.list(trace_id=trace_id(trace), limit=2)
        return len(sent)

    assert count(1) == count(3) + 1


def test_sql_sees_previews(pool: StoragePool) -> None:
    row = next(row for row in stored_logs(pool) if row["id"].int == 1001)
    assert row["body_json"]["role"] == "assistant"
    assert row["body_json"]["content"] == ("secret-1 " + a_text(1))[:100] + "…"
    assert set(row["payload_digests"]) == {"attributes", "body_json"}
    view = sa.text("SELECT * FROM log_payload_previews WHERE id = :id ORDER BY key DESC")
    with pool.engine.connect() as connection:
        found = connection.execute(view, {"id": row["id"]}).mappings().all()
    assert [(one["column"], one["key"]) for one in found] == [
        ("attributes", "gen_ai.input.messages"),
        ("body_json", "content"),
    ]
    assert found[1]["preview"] == row["body_json"]["content"]
    assert found[1]["digest"] == row["payload_digests"]["body_json"]["content"]
    assert {one["payload_frame"] for one in found} == {row["payload_frame"]}


def test_a_session_of_your_own_fills_records(pool: StoragePool) -> None:
    with Session(pool.engine) as session:
        rows = list(session.scalars(sa.select(LogRecord).order_by(LogRecord.timestamp)))
        pairs = session.execute(sa.select(LogRecord, LogRecord.id).limit(1)).all()
        with statements(pool.engine) as sent:
            assert open_payloads(rows, session) is not None
        assert len(sent) == 1
        open_payloads(pairs, session)
        assert not session.dirty
    assert {prompt_of(row) for row in rows} == {a_text(101), a_text(201), a_text(301)}
    assert prompt_of(pairs[0][0]) == prompt_of(next(row for row in rows if row.id == pairs[0][1]))


def test_values_that_moved_meanwhile_are_read_again(pool: StoragePool) -> None:
    body: Any = [{"role": "assistant", "content": a_text(9)}]
    write_logs(pool, [a_record(4, 1, body_json=body, attributes={})])
    with Session(pool.engine) as session:
        row = session.scalars(sa.select(LogRecord).where(LogRecord.id == UUID(int=4001))).one()
        assert isinstance(row.body_json, str)  # a preview
        assert convert_payloads(pool, "inline").changed_rows
        open_payloads([row], session)
        assert row.body_json == body


def test_an_export_reads_values_again_that_move_meanwhile(pool: StoragePool) -> None:
    whole = list(export_logs(pool))
    moved: list[int] = []

    def move(_: Any, __: Any, statement: str, *___: Any) -> None:
        # After the records, and before their frames are read.
        if not moved and "log_frames" in statement:
            moved.append(0)
            moved.append(convert_payloads(pool, "inline").changed_rows)

    sa.event.listen(pool.engine, "before_cursor_execute", move)
    try:
        assert list(export_logs(pool)) == whole
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", move)
    assert sum(moved) == 6


def test_a_record_that_was_deleted_meanwhile_is_named(pool: StoragePool) -> None:
    with Session(pool.engine) as session:
        row = session.scalars(sa.select(LogRecord).where(LogRecord.id == UUID(int=1001))).one()
        with pool.unit_of_work() as uow:
            uow.traces.delete(trace_id(1))
            uow.commit()
        with pytest.raises(NotFound, match="has been deleted"):
            open_payloads([row], session)


def test_a_damaged_frame_costs_only_its_records(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    bad = next(row["payload_frame"] for row in stored_logs(pool) if row["id"].int == 1002)
    with pool.engine.begin() as connection:
        connection.execute(sa.update(LogFrame).where(LogFrame.id == bad).values(data=b"no"))
    name = f"log payload frame {bad} of trace {trace_id(1)}"
    with caplog.at_level(logging.ERROR), pool.unit_of_work() as uow:
        rows = {row.id.int: row for row in uow.logs.list()}
    assert [r.getMessage().startswith(name) for r in caplog.records] == [True]
    # The flush wrote records of two traces, each with a frame of its own.
    for number, row in rows.items():
        is_preview = isinstance(row.attributes["gen_ai.input.messages"], str)
        assert is_preview == (number == 1002)
    exported = [
        record
        for request in export_logs(pool)
        for resource in request["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    assert len(exported) == 7
    with Session(pool.engine) as session:
        broken = session.scalars(sa.select(LogRecord).order_by(LogRecord.id)).all()
        with pytest.raises(DamagedFrame, match=name):
            open_payloads(broken, session)
        assert prompt_of(broken[0]) == a_text(101)


def test_messages_are_read_from_records_with_frames(pool: StoragePool) -> None:
    span = {**a_turn(4, 1), "attributes": {}, "events": []}
    write(pool, [span], payloads="inline")
    said = [{"role": "user", "parts": [{"type": "text", "content": a_text(7)}]}]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": a_text(8)}]}]
    attributes = {"gen_ai.input.messages": said, "gen_ai.output.messages": answer}
    write_logs(pool, [a_record(4, 1, body_json=None, event_name=DETAILS, attributes=attributes)])
    check_logs(pool)
    with pool.unit_of_work() as uow:
        messages = uow.traces.get_messages(trace_id(4), span_id(1))
    assert [one.text for one in messages.input] == [a_text(7)]
    assert [one.text for one in messages.output] == [a_text(8)]


def test_facts_are_filled_from_records_with_frames(pool: StoragePool) -> None:
    user = "u" * 300
    attributes = {**a_record(5, 1)["attributes"], "user.id": user}
    lacking: dict[str, Any] = {"user_id": None, "session_id": None, "attributes": {}, "events": []}
    first = {**a_turn(5, 1), **lacking}
    later = {**a_turn(5, 2), **lacking, "scope_name": "gcp.vertex.agent"}
    write(pool, [first], payloads="inline")
    logs = [a_record(5, n, event_name=DETAILS, attributes=attributes) for n in (1, 2)]
    write_logs(pool, logs)
    write(pool, [later], payloads="inline")
    pool.maintain()
    with pool.unit_of_work() as uow:
        spans = uow.traces.get_spans(trace_id(5))
    assert [span.user_id for span in spans] == [user, user]


def test_the_command_line_shows_whole_records(
    run: Run, pool: StoragePool, database_url: str
) -> None:
    shown = run("logs", "--json", "--trace", trace_id(1), DATABASE_URL=database_url)
    assert shown.code == 0, shown.err
    assert a_text(101) in shown.out
    assert "secret-1 " + a_text(3) in shown.out
