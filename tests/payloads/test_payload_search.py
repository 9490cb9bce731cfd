"""Prompts and completions are found the same in payload frames as in rows, whatever is indexed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    SpanFilters,
    StorageConfig,
    StoragePool,
    TraceFilters,
)
from observatory_storage.config import PayloadsConfig
from observatory_storage.lifecycle import payload_index, segment_merging
from observatory_storage.lifecycle.keep_rules import kept_among
from observatory_storage.lifecycle.payload_index import IndexedPayloads, index_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import (
    PayloadFrame,
    PayloadSegment,
    PayloadUnindexed,
    PayloadWords,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.payloads import FrameKey, insert_frames, prune_frames, read_frames
from observatory_storage.payloads.word_blocks import read_block
from tests.payloads.invariants import framed_rows
from tests.repositories.samples import DAY, Row, a_span, backwards, forwards, keys
from tests.servers import Server

BEGIN = (datetime.now(UTC) - 6 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
FILLER = ["the", "model", "answers", "with", "long", "text", "über", "страница", "說", "données"]
RARE = [
    "zebra",
    "Ångström",
    "привет",
    "東京",
    "naïve",
    "\\nabla",
    "v2.1",
    "don't",
    "snake_case",
    "0x1f",
]
TEXTS = [
    "zebra",
    "ZEBRA model",
    "ångström",
    "Привет",
    "東京",
    "naï*",
    "nabla",
    "v2.1",
    "don't",
    '"zebra v2.1"',
    '"the model"',
    "zebra or привет",
    "model -zebra",
    "-the",
    "snake_case",
    "0x1f -привет",
    "short",
    "short zebra",
    "nowhere",
]
SUBSTRINGS = ["ebr", "v2.", "京", "snake_c", "ngstr", "\\nab", "e model", "nowhere", "shor"]


def _text(chance: random.Random) -> str:
    words = chance.choices(FILLER, k=chance.randrange(50, 90))
    for _ in range(chance.choice([0, 0, 1, 2])):
        words.insert(chance.randrange(len(words)), chance.choice(RARE))
    return chance.choice([" ", "\n", ", "]).join(words)


def _attributes(chance: random.Random) -> dict[str, Any]:
    text = _text(chance)
    message = [{"role": "user", "content": text}]
    form: dict[str, Any] = chance.choice(
        [
            {"gen_ai.input.messages": message, "gen_ai.completion": "short answer"},
            {"input.value": json.dumps({"messages": message}), "output.value": _text(chance)},
            {"gen_ai.prompt": text},
            {"llm.input_messages.0.message.content": text, "other": _text(chance)},
            {"gen_ai.prompt": "short zebra"},
            {},
        ]
    )
    return {**form, "tenant": chance.randrange(3)}


def _rows(seed: int) -> list[Row]:
    chance = random.Random(seed)
    rows = []
    for trace in range(1, 41):
        begins = BEGIN + chance.random() * 3 * DAY
        for number in range(chance.randrange(1, 5)):
            start = begins + number * chance.choice([timedelta(seconds=1), DAY / 20, DAY])
            row = a_span(trace, trace * 10 + number, start, start_ns=0, kind="client")
            row |= {"attributes": _attributes(chance), "user_id": chance.choice(["ada", "bob"])}
            if chance.random() < 0.3:
                name = chance.choice(["gen_ai.choice", "retry"])
                attributes = {"content": _text(chance), "gen_ai.completion": _text(chance)}
                row["events"] = [{"name": name, "timestamp": start, "attributes": attributes}]
            rows.append(row)
    return rows


ROWS = _rows(3)


def _pool(url: str) -> StoragePool:
    payloads = PayloadsConfig(mode="compressed", threshold_bytes=300)
    return StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url), payloads=payloads))


@pytest.fixture(scope="module")
def inline(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """All rows without frames."""
    with postgres_server.database(migrated_template) as url, _pool(url) as pool:
        CopyWriter(pool, payloads="inline").write_spans(ROWS)
        yield pool


@pytest.fixture
def framed(database_url: str) -> Iterator[StoragePool]:
    with _pool(database_url) as pool:
        yield pool


def indexed(pool: StoragePool, **values: Any) -> IndexedPayloads:
    return index_payloads(Run.of(pool, **values))


def count(pool: StoragePool, model: type[Any]) -> int:
    with pool.engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(model)) or 0


def words(pool: StoragePool) -> set[str]:
    with pool.engine.connect() as connection:
        blocks = connection.scalars(sa.select(PayloadWords.data)).all()
    return {word for data in blocks for word, _ in read_block(data)}


def answers(pool: StoragePool, seed: int) -> list[Any]:
    """What a pool answers to questions about content."""
    chance = random.Random(seed)
    questions: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
    questions += [{"contains": text, "start_time": BEGIN} for text in SUBSTRINGS]
    questions += [{"text": "model", "contains": "zebra", "start_time": BEGIN}]
    found: list[Any] = []
    for given in chance.sample(questions, 4):
        if chance.random() < 0.4:
            given["start_time"] = BEGIN + chance.random() * 2 * DAY
            given["end_time"] = given["start_time"] + chance.random() * 2 * DAY
        if chance.random() < 0.3:
            given["user_id"] = "ada"
        if chance.random() < 0.2:
            given["attributes"] = {"tenant": 1}
        with pool.unit_of_work() as uow:
            found += [given, *_answers(uow.traces, given)]
    return found


def _answers(traces: Any, given: dict[str, Any]) -> Iterator[Any]:
    spans = SpanFilters(**given, limit=7)
    pages = forwards(lambda **cursor: traces.list_spans(spans, **cursor))
    yield [keys(page) for page in pages]
    yield traces.list_spans(spans, total="exact").total
    yield keys(traces.iterate_spans(spans, 5, oldest_first=True))
    yield [
        span.span_id
        for span in traces.list_spans(SpanFilters(**given, trace_id=ROWS[0]["trace_id"]))
    ]
    wanted = TraceFilters(**given, limit=5)
    pages = forwards(lambda **cursor: traces.list(wanted, **cursor))
    yield [[trace.trace_id for trace in page] for page in pages]
    back = backwards(lambda **cursor: traces.list(wanted, **cursor), pages[-1])
    yield [[trace.trace_id for trace in page] for page in back]
    yield traces.list(wanted, total="exact").total
    yield traces.get_stats(wanted)
    yield traces.get_stats(spans, group_by="user_id")
    bounds = {"start_time": BEGIN, "end_time": BEGIN + 9 * DAY, **given}
    yield keys(traces.list_spans(SpanFilters(**bounds), order_by="-total_tokens"))
    ordered = traces.list(TraceFilters(**bounds), order_by="-duration_us", total="exact")
    yield [trace.trace_id for trace in ordered], ordered.total


def test_answers_are_those_of_rows_without_frames(
    inline: StoragePool, framed: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_index, "_BATCH", 7)
    monkeypatch.setattr(payload_index, "_READ", 3)
    monkeypatch.setattr(segment_merging, "_TOGETHER", 3)
    writer = CopyWriter(framed)
    expected = {seed: answers(inline, seed) for seed in range(3)}
    writer.write_spans(ROWS[:50])
    assert indexed(framed).is_complete
    assert count(framed, PayloadSegment) > 0
    CopyWriter(framed, payloads="inline").write_spans(ROWS[50:60])
    writer.write_spans(ROWS[60:])
    assert count(framed, PayloadUnindexed) > 0
    assert answers(framed, 0) == expected[0]
    assert indexed(framed).merged_segments > 0
    assert count(framed, PayloadUnindexed) == 0
    assert answers(framed, 1) == expected[1]
    # Of days that are over, one segment each is left.
    indexed(framed, now=BEGIN + 20 * DAY)
    days = {row["start_time"].date() for row in ROWS if row["attributes"]}
    assert count(framed, PayloadSegment) <= len(days)
    assert answers(framed, 2) == expected[2]


@pytest.mark.parametrize(
    ("word", "search"),
    [
        ("Straße", "STRAßE"),
        ("Straße", "stra*"),
        ("naïve", "NAÏVE"),
        ("caf\\u00e9", "café"),
        ("\\nabla", "nabla"),
        ("東京都", "京都"),
        ("привет", "Привет"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_words_beyond_ascii_are_found(framed: StoragePool, word: str, search: str) -> None:
    row = a_span(1, 1, BEGIN)
    row["attributes"] = {"input.value": json.dumps([f"{word} and more " * 30], ensure_ascii=False)}
    CopyWriter(framed).write_spans([row])
    for _ in range(2):
        with framed.unit_of_work() as uow:
            assert keys(uow.traces.list_spans(SpanFilters(text=search))), search
            assert not uow.traces.list_spans(SpanFilters(text=f"{search} nowhere"))
        indexed(framed)


def test_frames_that_were_packed_anew_are_found(inline: StoragePool, framed: StoragePool) -> None:
    CopyWriter(framed).write_spans(ROWS)
    indexed(framed)
    with framed.engine.begin() as connection:
        stored = [FrameKey(*row) for row in connection.execute(sa.select(*_FRAME_KEY))]
        frames: Any = read_frames(connection, stored)
        connection.execute(sa.delete(PayloadFrame))
        connection.execute(sa.delete(PayloadUnindexed))
        renamed = {key: key._replace(id=key.id - 1) for key in frames}
        insert_frames(connection, {renamed[key]: frame.members() for key, frame in frames.items()})
        connection.execute(sa.delete(PayloadUnindexed))
        for model in (TraceSpan, TraceEvent):
            renamed_too = sa.update(model).values(payload_frame=model.payload_frame - 1)
            connection.execute(renamed_too.where(model.payload_frame.is_not(None)))
    assert answers(framed, 1) == answers(inline, 1)


_FRAME_KEY = (PayloadFrame.trace_id, PayloadFrame.start_time, PayloadFrame.id)


def test_words_of_deleted_traces_leave_the_index(framed: StoragePool) -> None:
    rows = [a_span(n, n, BEGIN + n * timedelta(minutes=1)) for n in (1, 2)]
    for row, word in zip(rows, ("secret", "public"), strict=True):
        row["attributes"] = {"input.value": f"{word} " * 100 + "both"}
    CopyWriter(framed).write_spans(rows)
    indexed(framed)
    assert {"secret", "public", "both"} <= words(framed)
    with framed.engine.begin() as connection:
        gone = TraceSpan.span_id == rows[0]["span_id"]
        key = sa.select(TraceSpan.trace_id, PayloadFrame.start_time, TraceSpan.payload_frame)
        of = sa.and_(
            PayloadFrame.trace_id == TraceSpan.trace_id,
            PayloadFrame.id == TraceSpan.payload_frame,
        )
        found: Any = connection.execute(key.join(PayloadFrame, of).where(gone)).one()
        frame = FrameKey(*found)
        connection.execute(sa.delete(TraceSpan).where(gone))
        prune_frames(connection, [frame])
    assert indexed(framed).merged_segments == 1
    assert words(framed) == {"public", "both"}
    with framed.unit_of_work() as uow:
        assert len(uow.traces.list_spans(SpanFilters(text="both"))) == 1


def test_segments_go_with_their_partitions(framed: StoragePool) -> None:
    CopyWriter(framed).write_spans(ROWS)
    indexed(framed)
    before = count(framed, PayloadSegment)
    with framed.engine.begin() as connection:
        first = sa.select(sa.func.min(PayloadSegment.last_start)).scalar_subquery()
        connection.execute(sa.delete(PayloadFrame).where(PayloadFrame.start_time <= first))
    assert indexed(framed).removed_segments == 1
    assert count(framed, PayloadSegment) == before - 1


def test_a_killed_step_leaves_what_it_had_not_finished(
    framed: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    CopyWriter(framed).write_spans(ROWS)
    noted = count(framed, PayloadUnindexed)
    with monkeypatch.context() as patch:
        patch.setattr(payload_index, "_delete_notes", None)  # fails after the segment was written
        with pytest.raises(TypeError):
            indexed(framed)
    assert (count(framed, PayloadUnindexed), count(framed, PayloadSegment)) == (noted, 0)
    assert indexed(framed, for_secs=0) == IndexedPayloads(is_complete=False)
    assert indexed(framed).rows == framed_rows(framed)
    assert indexed(framed) == IndexedPayloads()


def test_a_rule_of_retention_looks_into_frames(framed: StoragePool) -> None:
    CopyWriter(framed).write_spans(ROWS)
    with framed.unit_of_work() as uow:
        expected = {trace.id for trace in uow.traces.iterate(TraceFilters(text="zebra"))}
    with framed.engine.connect() as connection:
        ids = connection.scalars(sa.select(Trace.id)).all()
        assert kept_among(connection, [TraceFilters(text="zebra")], ids) == expected
    assert 0 < len(expected) < len(ids)


def test_damaged_frames_are_told_and_cost_only_themselves(
    framed: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    CopyWriter(framed).write_spans(ROWS)
    with framed.unit_of_work() as uow:
        whole = keys(uow.traces.iterate_spans(SpanFilters(text="zebra")))
    with framed.engine.begin() as connection:
        connection.execute(sa.update(PayloadFrame).values(data=b"damaged"))
    with framed.unit_of_work() as uow:
        left = keys(uow.traces.iterate_spans(SpanFilters(text="zebra")))
    # In short texts, which stand in their rows, the word is found as before.
    assert set() < set(left) < set(whole)
    assert "payload frame" in caplog.text
    assert indexed(framed).is_complete
