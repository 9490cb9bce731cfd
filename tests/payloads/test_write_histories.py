"""Random histories of writes end in the same rows in both modes, after each step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    PayloadsConfig,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    TraceWriter,
)
from observatory_storage.config import PoolConfig
from tests.payloads.invariants import check_payloads, whole_rows
from tests.writers.helpers import START, a_span, an_event, empty, event

Step = Callable[[StoragePool, str], object]
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "and",
    "prompts",
    "“quoted”",
    "漢字",
    "\\",
    "\n",
]
_STEPS = 12


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(min_connections=0),
        payloads=PayloadsConfig(mode="compressed", threshold_bytes=600),
    )
    with StoragePool(config) as pool:
        yield pool


@pytest.mark.parametrize("seed", range(6))
def test_histories_of_writes(pool: StoragePool, compressed: StoragePool, seed: int) -> None:
    steps = list(_steps(random.Random(seed)))
    expected = []
    for step in steps:
        step(pool, "inline")
        expected.append(whole_rows(pool))
    empty(pool)
    chance = random.Random(seed)
    framed = 0
    for step, rows in zip(steps, expected, strict=True):
        step(compressed, "inline" if chance.random() < 0.2 else "compressed")
        framed = max(framed, check_payloads(compressed))
        assert whole_rows(compressed) == rows
    assert framed > 10


def _steps(chance: random.Random) -> Iterator[Step]:
    for _ in range(_STEPS):
        size = chance.choice((1, 3, 40))
        method = chance.choice(("auto", "copy", "insert"))
        kind = chance.randrange(5)
        spans = [_span(chance) for _ in range(size)]
        events = [_event(chance) for _ in range(chance.choice((1, 5)))]
        if kind == 0:
            yield _of_events(events, method)
        elif kind == 1:
            yield _buffered(spans, events)
        else:
            yield _of_spans(spans, method)


def _of_spans(spans: list[Any], method: Any) -> Step:
    def write(pool: StoragePool, mode: Any) -> None:
        CopyWriter(pool, method=method, payloads=mode).write_spans(spans)

    return write


def _of_events(events: list[Any], method: Any) -> Step:
    def write(pool: StoragePool, mode: Any) -> None:
        CopyWriter(pool, method=method, payloads=mode).write_events(events)

    return write


def _buffered(spans: list[Any], events: list[Any]) -> Step:
    def write(pool: StoragePool, mode: Any) -> None:
        del mode
        with TraceWriter(pool) as writer:
            for event in events:
                writer.write_event(event)
            writer.write_spans(spans)

    return write


def _span(chance: random.Random) -> dict[str, Any]:
    number = chance.randrange(1, 25)
    start = START + timedelta(minutes=7 * number)
    events = None
    if chance.random() < 0.7:
        events = [
            event(f"e{n}", attributes=_attributes(chance)) for n in range(chance.randrange(3))
        ]
    return a_span(
        1 + number % 4,
        number,
        start_time=start,
        end_time=None if chance.random() < 0.3 else start + timedelta(seconds=chance.randrange(3)),
        attributes=_attributes(chance),
        events=events,
    )


def _event(chance: random.Random) -> dict[str, Any]:
    number = chance.randrange(1, 25)
    start = START + timedelta(minutes=7 * number)
    return an_event(
        1 + number % 4,
        number,
        chance.randrange(3),
        span_start_time=start,
        attributes=_attributes(chance),
    )


def _attributes(chance: random.Random) -> dict[str, Any]:
    # Few texts, so that versions are often equal, or differ by the end of a value alone.
    def text() -> str:
        words = random.Random(chance.randrange(2))
        return " ".join(words.choices(_WORDS, k=chance.choice((3, 90, 91, 400))))

    values: list[Any] = [text(), [text(), {"content": text()}], chance.randrange(3)]
    return {f"k{n}": chance.choice(values) for n in range(chance.randrange(4))}
