"""Stored values move into frames and back, and nothing else changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage.config import PayloadMode
from observatory_storage.errors import ValidationError
from observatory_storage.lifecycle.payload_conversion import ConvertedPayloads, convert_payloads
from observatory_storage.models import PayloadFrame, TraceEvent, TraceSpan
from observatory_storage.payloads import open_payloads
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.payloads.framed import START, a_text, a_turn, frame_count, turns, write
from tests.payloads.invariants import check_payloads, framed_rows, whole_rows
from tests.writers.helpers import quick_pool, span_id

DAY = timedelta(days=1)


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


def stored(pool: StoragePool) -> list[Any]:
    """The attributes as text, and when rows were written."""
    with pool.engine.connect() as connection:
        return [
            connection.execute(
                sa.select(
                    sa.cast(model.attributes, sa.Text), model.created_at, model.trace_id
                ).order_by(model.__table__.c.trace_id, model.span_id)
            ).all()
            for model in (TraceSpan, TraceEvent)
        ]


def test_values_move_there_and_back(pool: StoragePool) -> None:
    odd: dict[str, Any] = {
        "amount": 1.10,
        "large": 2**80,
        "text": 'é "\\\t\u2028' + a_text(1),
        "none": [None, {}],
    }
    write(pool, *turns(range(1, 6), 5), [a_turn(9, 1, **odd)], payloads="inline")
    write(pool, *turns([7], 2))
    with pool.engine.begin() as connection:
        # As SQL of one's own may have it: more digits than a double.
        connection.execute(
            sa.text(
                "UPDATE trace_spans SET attributes = attributes || jsonb_build_object('exact',"
                " jsonb_build_array(1.10, 12345678901234567890.12345, repeat('x', 900)))"
                " WHERE payload_frame IS NULL"
            )
        )
    inline, rows = stored(pool), whole_rows(pool)
    assert framed_rows(pool) == 4
    done = convert_payloads(pool, "compressed")
    assert done == ConvertedPayloads(rows=52, changed_rows=52)
    check_payloads(pool)
    assert framed_rows(pool) == 56
    assert whole_rows(pool) == rows
    assert convert_payloads(pool, "compressed") == ConvertedPayloads()
    assert convert_payloads(pool, "inline") == ConvertedPayloads(rows=56, changed_rows=56)
    assert frame_count(pool) == 0
    assert whole_rows(pool) == rows
    # The rows of trace 7 had previews.
    for before, after in zip(inline, stored(pool), strict=True):
        kept = [row for row in before if "secret-7" not in row[0]]
        assert [row for row in after if "secret-7" not in row[0]] == kept


def test_an_equal_span_sent_again_after_the_move_changes_nothing(pool: StoragePool) -> None:
    write(pool, *turns([1, 2], 3), payloads="inline")
    convert_payloads(pool, "compressed")
    with pool.engine.connect() as connection:
        versions = connection.execute(sa.text("SELECT ctid, xmin::text FROM trace_spans")).all()
    rows = whole_rows(pool)
    write(pool, *turns([1, 2], 3))
    check_payloads(pool)
    assert whole_rows(pool) == rows
    with pool.engine.connect() as connection:
        texts = sa.text("SELECT ctid, xmin::text FROM trace_spans")
        assert connection.execute(texts).all() == versions


def test_only_a_range_is_moved_and_the_rest_later(pool: StoragePool) -> None:
    write(pool, *turns([1], 2), *turns([2], 2, START + DAY), payloads="inline")
    first = convert_payloads(pool, "compressed", START, START + timedelta(seconds=2))
    assert first.changed_rows == 2
    seen: list[ConvertedPayloads] = []
    part = convert_payloads(pool, "compressed", for_secs=0, progress=seen.append)
    assert part == seen[-1]
    assert part.next_start is not None
    assert part.changed_rows < 6
    rest = convert_payloads(pool, "compressed", part.next_start)
    assert rest.next_start is None
    assert part.changed_rows + rest.changed_rows == 6
    check_payloads(pool)


def test_an_attribute_that_was_set_since_wins(pool: StoragePool) -> None:
    write(pool, *turns([1], 1))
    changed = sa.text(
        """UPDATE trace_spans SET attributes = attributes || '{"gen_ai.input.messages": [1.10]}'"""
    )
    with pool.engine.begin() as connection:
        connection.execute(changed)
    convert_payloads(pool, "inline")
    with pool.engine.connect() as connection:
        attributes = connection.scalar(sa.select(TraceSpan.attributes))
    assert attributes is not None
    assert attributes["gen_ai.input.messages"] == [1.10]
    assert attributes["gen_ai.system_instructions"] == "secret-1 " + a_text(1)
    assert frame_count(pool) == 0


def by_sql(pool: StoragePool) -> None:
    changed = sa.text(
        """UPDATE trace_spans SET attributes = attributes || '{"small": "changed"}'"""
    )
    with pool.engine.begin() as connection:
        connection.execute(changed)


def by_session(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        (span,) = open_payloads(uow.session.scalars(sa.select(TraceSpan)), uow.session)
        span.attributes = {**(span.attributes or {}), "small": "changed"}
        uow.commit()


@pytest.mark.parametrize("change", [by_sql, by_session])
@pytest.mark.parametrize("to", ["compressed", "inline"])
def test_an_attribute_that_is_set_meanwhile_wins(
    pool: StoragePool, to: PayloadMode, change: Callable[[StoragePool], None]
) -> None:
    write(pool, *turns([1], 1), payloads="inline" if to == "compressed" else "compressed")
    others: list[threading.Thread] = []

    def begin_change(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        """Another transaction changes the row that has been read, as soon as it can."""
        if statement.startswith("UPDATE") and "payload_digests" in statement and not others:
            others.append(threading.Thread(target=change, args=[pool]))
            others[0].start()
            others[0].join(0.5)

    sa.event.listen(pool.engine, "before_cursor_execute", begin_change)
    assert convert_payloads(pool, to).changed_rows == 2
    others[0].join()
    check_payloads(pool)
    (row,) = whole_rows(pool)["trace_spans"]
    assert json.loads(row[2]["attributes"]) == {**a_turn(1, 1)["attributes"], "small": "changed"}


def test_rows_of_a_damaged_frame_stay_as_they_are(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    write(pool, *turns([1, 2], 1))
    with pool.engine.begin() as connection:
        frame = connection.scalar(sa.select(TraceSpan.payload_frame).limit(1))
        this = PayloadFrame.id == frame
        connection.execute(sa.update(PayloadFrame).where(this).values(data=b"damaged"))
    done = convert_payloads(pool, "inline")
    assert (done.rows, done.changed_rows, done.failed_rows) == (4, 2, 2)
    assert str(frame) in caplog.text
    assert framed_rows_of(pool, frame) == 2


def framed_rows_of(pool: StoragePool, frame: int | None) -> int:
    with pool.engine.connect() as connection:
        return sum(
            len(connection.execute(sa.select(model).where(model.payload_frame == frame)).all())
            for model in (TraceSpan, TraceEvent)
        )


def test_a_large_trace_gets_several_frames(pool: StoragePool) -> None:
    spans = [
        a_turn(1, 1, START, text=a_text(n, 32_000)) | {"span_id": span_id(n), "events": []}
        for n in range(1, 260)
    ]
    CopyWriter(pool).write_spans(spans)
    rows = whole_rows(pool)
    assert convert_payloads(pool, "compressed").changed_rows == 259
    check_payloads(pool)
    assert 2 < frame_count(pool) < 8
    assert whole_rows(pool) == rows


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("elsewhere",), "to"), (("inline", START, START - DAY), "end")],
)
def test_wrong_arguments_are_named(pool: StoragePool, arguments: Any, field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        convert_payloads(pool, *arguments)
    assert raised.value.field == field
