"""What instrumentations export is stored whole, and its facts are those that the server said.

`make recordings` makes the recordings. Each is in a database of its own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from observatory_storage import SpanFilters, StoragePool, Trace, TraceFilters, TraceSpan
from observatory_storage.config import PostgresConfig, StorageConfig
from tests.otlp.otlp import meaning
from tests.otlp.stored import EXPORT, INGEST, all_rows
from tests.recordings.record.instrumentations import INSTRUMENTATIONS
from tests.recordings.recording import DATA, ENVIRONMENT, RECORDINGS, Recording
from tests.servers import Server


@dataclass(frozen=True)
class Stored:
    """A recording that was ingested, and its traces as they were read back."""

    recording: Recording
    pool: StoragePool
    refused: list[object]
    traces: list[Trace]
    spans: list[TraceSpan]

    def sum(self, column: str) -> Decimal | None:
        values = [Decimal(value) for span in self.spans if (value := getattr(span, column))]
        return sum(values, Decimal(0)) if values else None

    def values(self, column: str) -> set[str]:
        return {value for span in self.spans if (value := getattr(span, column)) is not None}


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda recording: recording.name)
def stored(
    request: pytest.FixtureRequest, postgres_server: Server, migrated_template: str
) -> Iterator[Stored]:
    recording: Recording = request.param
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            refused = ingest(pool, recording)
            with pool.unit_of_work() as uow:
                traces = list(uow.traces.list(limit=100))
                spans = [span for trace in traces for span in uow.traces.get_spans(trace.id)]
            yield Stored(recording, pool, refused, traces, spans)


def ingest(pool: StoragePool, recording: Recording) -> list[object]:
    refused: list[object] = []
    for signal, sent in recording.requests:
        refused += INGEST[signal](pool, json.dumps(sent)).rejected
    # Two instrumentations that report one call in two traces.
    pool.settle_usage()
    return refused


def test_every_scenario_is_recorded_with_the_packages_that_are_named() -> None:
    assert len(INSTRUMENTATIONS) >= 8
    declared = {
        (name, scenario): list(one.packages)
        for name, one in INSTRUMENTATIONS.items()
        for scenario in one.scenarios
    }
    recorded = {
        (path.parent.parent.name, path.parent.name): json.loads(path.read_text())["packages"]
        for path in DATA.glob("*/*/expected.json")
    }
    assert recorded == declared
    assert all(recording.sent("traces") for recording in RECORDINGS)


def test_recordings_are_small_and_do_not_name_the_machine() -> None:
    sizes: Counter[Path] = Counter()
    for path in DATA.glob("*/*/*.json"):
        sizes[path.parent] += path.stat().st_size
        assert not re.search(r"/(home|root|tmp|var|Users)/", path.read_text()), path
    assert max(sizes.values()) < 60_000


def test_everything_is_stored_and_exported_equal(stored: Stored) -> None:
    assert stored.refused == []
    for signal, export in EXPORT.items():
        sent = meaning(signal, stored.recording.sent(signal))
        assert meaning(signal, export(stored.pool)) == sent
    ids = Counter(
        (span["traceId"], span["spanId"])
        for request in stored.recording.sent("traces")
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    )
    assert Counter((span.trace_id.hex, span.span_id) for span in stored.spans) == ids
    assert sum(trace.span_count for trace in stored.traces) == ids.total()


def test_ingesting_again_changes_nothing(stored: Stored) -> None:
    before = all_rows(stored.pool)
    assert ingest(stored.pool, stored.recording) == []
    assert all_rows(stored.pool) == before


def test_each_token_counts_once(stored: Stored) -> None:
    prompt = sum(call["prompt_tokens"] for call in stored.recording.counted)
    completion = sum(call["completion_tokens"] for call in stored.recording.counted)
    # Where there is nothing to count, whether 0 or nothing is sent is up to the instrumentation.
    assert {
        "prompt": stored.sum("prompt_tokens") or 0,
        "completion": stored.sum("completion_tokens") or 0,
        "total": stored.sum("total_tokens") or 0,
        "total of traces": sum(trace.total_tokens or 0 for trace in stored.traces),
    } == {
        "prompt": prompt,
        "completion": completion,
        "total": prompt + completion,
        "total of traces": prompt + completion,
    }


@pytest.mark.parametrize(
    ("detail", "fact"),
    [
        ("prompt_cache_read", "cached_tokens"),
        ("prompt_cache_write", "cache_write_tokens"),
        ("completion_reasoning", "reasoning_tokens"),
    ],
)
def test_token_details_are_told_apart_once(stored: Stored, detail: str, fact: str) -> None:
    told = sum(call[fact] for call in stored.recording.calls)
    tokens = sum((span.token_details or {}).get(detail, 0) for span in stored.spans)
    assert tokens == (0 if fact in stored.recording.unsent else told)


def test_cost_is_the_one_that_was_told(stored: Stored) -> None:
    cost = Decimal(stored.recording.told.get("cost", 0))
    assert (stored.sum("total_cost_usd") or 0) == cost
    assert sum(trace.total_cost_usd or 0 for trace in stored.traces) == cost


def test_provider_is_the_one_that_was_called(stored: Stored) -> None:
    called = {call["provider"] for call in stored.recording.calls}
    # Some instrumentations name themselves or their framework instead.
    if "provider" not in stored.recording.unsent:
        assert stored.values("provider") == called


def test_model_is_the_one_that_was_asked_for_or_that_answered(stored: Stored) -> None:
    calls = stored.recording.calls or (stored.recording.told,)
    names = {name: call["model"] for call in calls for name in (call["model"], answering(call))}
    # Some instrumentations name only the one that answered.
    assert {names.get(model, model) for model in stored.values("model")} == {
        call["model"] for call in calls
    }


def answering(call: dict[str, str]) -> str:
    return call.get("response_model", call["model"])


@pytest.mark.parametrize("fact", ["user", "session"])
def test_user_and_session_are_those_that_the_program_told(stored: Stored, fact: str) -> None:
    value = stored.recording.told.get(fact)
    column = f"{fact}_id"
    if value is None or fact in stored.recording.unsent:
        assert stored.values(column) <= {value}
        return
    assert stored.values(column) == {value}
    with stored.pool.unit_of_work() as uow:
        found = uow.traces.list(TraceFilters(**{column: value}))
    assert [trace.id for trace in found] == [trace.id for trace in stored.traces]


@pytest.mark.parametrize("fact", ["agent", "tool"])
def test_agent_and_tool_are_those_that_ran(stored: Stored, fact: str) -> None:
    told = stored.recording.told.get(fact)
    assert stored.values(f"{fact}_name") == ({told} if told else set())


def test_environment_is_that_of_the_resource(stored: Stored) -> None:
    assert stored.values("environment") == {ENVIRONMENT}


def test_status_and_message_tell_the_error(stored: Stored) -> None:
    statuses = {trace.status for trace in stored.traces}
    messages = [span.status_message or "" for span in stored.spans if span.status == "error"]
    if not stored.recording.errors:
        assert statuses <= {"ok", "unset"}
        assert messages == []
        return
    assert statuses == {"error"}
    assert stored.values("error_type") or "error_type" in stored.recording.unsent
    for error in stored.recording.errors:
        assert any(error in message for message in messages), messages


def test_words_of_the_conversation_are_found(stored: Stored) -> None:
    starts = [span.start_time for span in stored.spans]
    filters = SpanFilters(start_time=min(starts), end_time=max(starts) + timedelta(seconds=1))
    assert stored.recording.words
    with stored.pool.unit_of_work() as uow:
        not_found = {
            key: word
            for key, word in stored.recording.words.items()
            if not uow.traces.search_text(word, filters)
        }
    assert not_found == {}


def test_time_to_the_first_chunk_is_in_milliseconds(stored: Stored) -> None:
    waited = stored.recording.first_chunks_ms
    told = [span for span in stored.spans if span.ttft_ms is not None]
    assert len(told) == len(waited)
    for span in told:
        assert span.ttft_ms is not None
        assert span.duration_us is not None
        assert min(waited) <= span.ttft_ms <= span.duration_us / 1000
