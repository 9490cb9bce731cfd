"""Calls, OTLP requests and the spool store large values as the other ways do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from observatory_storage import (
    CopyWriter,
    LlmSpan,
    StoragePool,
    TraceWriter,
    WriterConfig,
    ingest_traces,
)
from observatory_storage.config import PayloadMode
from tests.payloads.invariants import check_payloads, framed_rows
from tests.payloads.test_writing import LONG, a_call, pool_in
from tests.writers.helpers import START, empty


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    with pool_in(database_url, "compressed") as pool:
        yield pool


def test_calls_and_requests_and_the_spool(
    pool: StoragePool, compressed: StoragePool, tmp_path: Path
) -> None:
    with TraceWriter(compressed, WriterConfig(spool_dir=tmp_path)) as writer:
        for number in range(3):
            writer.write_span_from_llm(
                LlmSpan(
                    trace_id=f"{number + 1:032x}",
                    name="chat",
                    provider="openai",
                    model="gpt-4o",
                    service_name="chat",
                    start_time=START,
                    end_time=START + timedelta(seconds=1),
                    prompt=LONG,
                    completion=LONG,
                )
            )
        # As while the database is away; the rows are written twice then.
        assert writer._delivery.replay is not None
        writer._delivery.replay.take(list(writer._buffer.newest_first()))
    assert framed_rows(compressed) == 3
    assert check_payloads(compressed) >= 3
    empty(compressed)
    attribute = {"key": "prompt", "value": {"stringValue": LONG}}
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "chat",
        "startTimeUnixNano": "1773500000000000000",
        "endTimeUnixNano": "1773500001000000000",
        "attributes": [attribute],
        "events": [{"name": "e", "timeUnixNano": "1773500000000000000", "attributes": [attribute]}],
    }
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    for _ in range(2):
        ingest_traces(compressed, json.dumps(request).encode())
        assert check_payloads(compressed) == 2
    ingest_traces(pool, json.dumps(request).encode())
    assert check_payloads(pool) == 0


def test_writers_choose_their_mode(pool: StoragePool, compressed: StoragePool) -> None:
    modes: list[tuple[StoragePool, PayloadMode, int]]
    modes = [(pool, "compressed", 2), (compressed, "inline", 0)]
    for given, mode, framed in modes:
        with TraceWriter(given, WriterConfig(payloads=mode)) as writer:
            writer.write_span(a_call())
            result = writer.flush()
        assert (result.committed, framed_rows(given)) == (1, framed)
        empty(given)
        CopyWriter(given, payloads=mode).write_spans([a_call()])
        assert framed_rows(given) == framed
        empty(given)
