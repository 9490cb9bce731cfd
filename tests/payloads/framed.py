"""Spans with large values, which several flushes write."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from observatory_storage.config import PayloadMode
from observatory_storage.models import PayloadFrame
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.writers.helpers import span_id, trace_id

__all__ = ["START", "a_text", "a_turn", "frame_count", "turns", "write"]

START = datetime.now(UTC).replace(hour=9, minute=10, second=0, microsecond=0) - timedelta(days=3)
_WORDS = ("river", "stone", "amber", "lantern", "meadow", "copper", "winter", "harbour", "violet")


def a_text(seed: int, length: int = 3_000) -> str:
    """Words that are the same for the same seed."""
    words = random.Random(seed)
    return " ".join(words.choice(_WORDS) for _ in range(length // 6))


def a_turn(trace: int, number: int, start: datetime = START, **attributes: Any) -> dict[str, Any]:
    """A span with a prompt and an event with an answer, both large."""
    moment = start + timedelta(seconds=number)
    prompt = [{"role": "user", "content": a_text(trace * 100 + turn)} for turn in range(number)]
    return {
        "trace_id": trace_id(trace),
        "span_id": span_id(number),
        "name": "chat",
        "service_name": "shop",
        "user_id": f"user-{trace}",
        "session_id": f"session-{trace}",
        "start_time": moment,
        "end_time": moment + timedelta(seconds=1),
        "status": "ok",
        "total_tokens": number,
        "attributes": {
            "small": f"secret-{trace}",
            "gen_ai.input.messages": prompt,
            "gen_ai.system_instructions": f"secret-{trace} " + a_text(trace),
            **attributes,
        },
        "events": [
            {
                "name": "choice",
                "timestamp": moment,
                "attributes": {"answer": f"secret-{trace} " + a_text(number)},
            }
        ],
    }


def turns(traces: Iterable[int], count: int, start: datetime = START) -> list[list[dict[str, Any]]]:
    """Flushes: the first turns of all traces, then the second ones, and so on."""
    return [[a_turn(trace, n, start) for trace in traces] for n in range(1, count + 1)]


def write(
    pool: StoragePool, *flushes: Iterable[dict[str, Any]], payloads: PayloadMode = "compressed"
) -> None:
    """Write each flush in a transaction of its own."""
    for spans in flushes:
        CopyWriter(pool, payloads=payloads).write_spans(spans)


def frame_count(pool: StoragePool) -> int:
    with pool.engine.connect() as connection:
        found = connection.scalar(sa.select(sa.func.count()).select_from(PayloadFrame))
    return found or 0
