"""A thousand calls of several providers cost what an independent computation says."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from observatory_storage import (
    CopyWriter,
    LlmSpan,
    StoragePool,
    TraceWriter,
    ingest_traces,
    load_prices,
)
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.rows import prepare_all
from observatory_storage.storing import store
from observatory_storage.tables import SPANS
from observatory_storage.writers.spool.files import Spool
from tests.pricing.expected_costs import MIDNIGHT, expected_cost
from tests.pricing.price_list import price_file
from tests.rules.doors import pairs, span_request
from tests.writers.helpers import fetch

CALLS = 1000
# By family: how its provider and its models are spelled.
SPELLINGS: dict[str, tuple[str, list[str]]] = {
    "gpt-4o": ("openai", ["gpt-4o", "GPT-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20"]),
    "o3": ("openai", ["o3"]),
    "claude-sonnet-4": ("anthropic", ["claude-sonnet-4", "claude-sonnet-4-latest"]),
    "gemini-pro": ("gcp.vertex_ai", ["gemini-pro"]),
    "any-host": ("groq", ["any-host", "any-host-70b"]),
}
DETAILS = {
    "read": "gen_ai.usage.cache_read.input_tokens",
    "write": "gen_ai.usage.cache_creation.input_tokens",
    "write_1h": "gen_ai.usage.details.ephemeral_1h_input_tokens",
    "audio": "gen_ai.usage.audio.input_tokens",
    "image": "gen_ai.usage.image.input_tokens",
    "video": "gen_ai.usage.video.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "spoken": "gen_ai.usage.audio.output_tokens",
    "drawn": "gen_ai.usage.image.output_tokens",
}
Call = dict[str, Any]


def calls(chance: random.Random) -> list[Call]:
    return [call(chance, number) for number in range(1, CALLS + 1)]


def call(chance: random.Random, number: int) -> Call:
    family = chance.choice(list(SPELLINGS))
    prompt = chance.choice([0, 7, 128_000, 128_001, 200_000, 200_001, chance.randint(1, 900_000)])
    completion = chance.choice([0, 1, chance.randint(1, 100_000)]) if prompt else 5
    # Around the change of a price, and also the very last moment before it.
    offset = chance.choice([-1, 0, 1, chance.randint(-(10**12), 10**12)])
    made: Call = {
        "number": number,
        "family": family,
        "start": MIDNIGHT + timedelta(microseconds=offset),
        "tier": chance.choice([None, None, "batch", "default"]) if family == "gpt-4o" else None,
        "prompt": prompt,
        "completion": completion,
        "model": chance.choice(SPELLINGS[family][1]),
        "is_answered_by": chance.random() < 0.3,
    }
    for left, kinds in (
        (prompt, ("read", "write", "audio", "image", "video")),
        (completion, ("reasoning", "spoken", "drawn")),
    ):
        for kind in kinds:
            made[kind] = chance.randint(0, left) if chance.random() < 0.4 else 0
            left -= made[kind]  # noqa: PLW2901 - what is left for the next kind
    made["write_1h"] = chance.randint(0, made["write"])
    return made


def attributes(call: Call) -> dict[str, Any]:
    provider, _ = SPELLINGS[call["family"]]
    given: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.usage.input_tokens": call["prompt"],
        "gen_ai.usage.output_tokens": call["completion"],
    }
    if call["is_answered_by"]:
        # The requested model is a deployment that has no price.
        given |= {"gen_ai.request.model": "prod", "gen_ai.response.model": call["model"]}
    else:
        given["gen_ai.request.model"] = call["model"]
    if call["tier"] is not None:
        given["gen_ai.openai.response.service_tier"] = call["tier"]
        given["gen_ai.openai.request.service_tier"] = "auto"
    return given | {name: call[kind] for kind, name in DETAILS.items() if call[kind]}


def a_span(call: Call) -> dict[str, Any]:
    return {
        "trace_id": f"{call['number']:032x}",
        "span_id": f"{call['number']:016x}",
        "name": "chat",
        "service_name": "shop",
        "start_time": call["start"],
        "end_time": call["start"] + timedelta(seconds=1),
        "attributes": attributes(call),
    }


def copied(pool: StoragePool, calls: Sequence[Call], _: Path) -> None:
    CopyWriter(pool).write_spans(map(a_span, calls))


def inserted(pool: StoragePool, calls: Sequence[Call], _: Path) -> None:
    CopyWriter(pool, method="insert").write_spans(map(a_span, calls))


def within_a_unit_of_work(pool: StoragePool, calls: Sequence[Call], _: Path) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans(map(a_span, calls))
        uow.commit()


def buffered(pool: StoragePool, calls: Sequence[Call], _: Path) -> None:
    with TraceWriter(pool) as writer:
        for each in calls:
            writer.write_span(a_span(each))


def of_model_calls(pool: StoragePool, calls: Sequence[Call], _: Path) -> None:
    with TraceWriter(pool) as writer:
        for each in calls:
            named = a_span(each)
            told = named["attributes"]
            writer.write_span_from_llm(
                LlmSpan(
                    model=told.pop("gen_ai.request.model"),
                    response_model=told.pop("gen_ai.response.model", None),
                    provider=told.pop("gen_ai.provider.name"),
                    prompt_tokens=told.pop("gen_ai.usage.input_tokens"),
                    completion_tokens=told.pop("gen_ai.usage.output_tokens"),
                    trace_id=named["trace_id"],
                    span_id=named["span_id"],
                    start_time=named["start_time"],
                    end_time=named["end_time"],
                    attributes=told,
                )
            )


def ingested(pool: StoragePool, calls: Sequence[Call], _: Path) -> None:
    spans = []
    for each in calls:
        named = a_span(each)
        start = (each["start"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        spans.append(
            {
                "traceId": named["trace_id"],
                "spanId": named["span_id"],
                "name": "chat",
                "startTimeUnixNano": str(start * 1000),
                "endTimeUnixNano": str((start + 10**6) * 1000),
                "attributes": pairs(named["attributes"]),
            }
        )
    assert ingest_traces(pool, span_request(*spans)).accepted == len(calls)


def spooled(pool: StoragePool, calls: Sequence[Call], folder: Path) -> None:
    spool = Spool(folder, "target", 2**24)
    spool.prepare()
    assert spool.append(prepare_all(SPANS, list(map(a_span, calls)))) == 0
    chunk = spool.read(10_000)
    assert chunk is not None
    assert store(pool, chunk.rows).committed == len(calls)


DOORS: list[Callable[[StoragePool, Sequence[Call], Path], None]] = [
    *(copied, inserted, within_a_unit_of_work, buffered, of_model_calls, ingested, spooled),
]


def test_a_thousand_calls_cost_what_an_independent_computation_says(
    pool: StoragePool, tmp_path: Path
) -> None:
    load_prices(pool, price_file(tmp_path))
    made = calls(random.Random(7))
    for place, door in enumerate(DOORS):
        door(pool, made[place :: len(DOORS)], tmp_path)
    by_id = {row["span_id"]: row for row in fetch(pool, TraceSpan)}
    assert len(by_id) == CALLS
    total = Fraction(0)
    for each in made:
        row = by_id[f"{each['number']:016x}"]
        costs = (row["prompt_cost_usd"], row["completion_cost_usd"], row["total_cost_usd"])
        if each["prompt"] + each["completion"] == 0:
            assert costs == (None, None, None)
            continue
        assert None not in costs, (each, row)
        assert tuple(map(Fraction, costs)) == expected_cost(each), each
        assert row["cost_source"] == "computed"
        total += Fraction(row["total_cost_usd"])
    assert len({each["family"] for each in made}) == len(SPELLINGS)
    of_traces = [row["total_cost_usd"] for row in fetch(pool, Trace)]
    assert sum(map(Fraction, of_traces), Fraction(0)) == total
    with pool.unit_of_work() as uow:
        (summary,) = uow.metrics.get_cost_summary(group_by=[])
        assert Fraction(summary.total_cost_usd or Decimal(0)) == total
        assert summary.unpriced_span_count == 0
        assert uow.metrics.get_unpriced_models() == []
