"""Requests of real instrumentations, mutated: each item is stored, repaired, or refused by name."""

from __future__ import annotations

import json
import random
import re
import resource
import signal as signals
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import func, select

from observatory_storage import IngestResult
from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.models import LogRecord, MetricDataPoint, TraceSpan
from observatory_storage.pool import StoragePool
from tests.otlp.otlp import as_message
from tests.otlp.stored import EXPORT, INGEST, clear
from tests.soak.scale import scaled, seeded

RECORDINGS: Final = Path(__file__).parents[1] / "recordings" / "data"
KEYS: Final = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
TABLES: Final = {"traces": TraceSpan, "metrics": MetricDataPoint, "logs": LogRecord}
REQUESTS: Final = scaled(40, 17_000)  # of each signal and encoding: 10^5 in a soak
CLEARED_AFTER: Final = 50
EXPORTED_AFTER: Final = 10
MOST_SECONDS: Final = 60
MOST_GROWTH: Final = 200 * 1024  # in KiB, of the memory of the process
JUNK: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 0.5, 1e300, 2**31, 2**63, 2**64, -(10**30), 10**30),
    *("", " ", "0", "-1", "1.5", "NaN", "Infinity", "18446744073709551616", "\x00", "\ud800"),
    *("0" * 32, "f" * 16, "F" * 32, "W45f+XmAOBA9Jp7+M4E/xg==", "x" * 5000, "2026-07-01T00:00:00Z"),
    *(
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"stringValue": 1},
        {"intValue": "x"},
        {"string_value": "a"},
    ),
    *({"arrayValue": {"values": [{}] * 50}}, {"kvlistValue": {"values": [{"key": "k"}]}}),
)
UNITS: Final = ("spans", "dataPoints", "logRecords")


def real_requests(signal: str) -> list[dict[str, Any]]:
    """What instrumentations have sent of a signal."""
    read = (json.loads(path.read_text()) for path in sorted(RECORDINGS.rglob("[0-9]*.json")))
    return [request for request in read if KEYS[signal][0] in request]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in parsed JSON: what holds it, and under what key."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        held = pending.pop()
        keys: Any = held if isinstance(held, dict) else range(len(held))
        for key in keys:
            found.append((held, key))
            if isinstance(held[key], (dict, list)):
                pending.append(held[key])
    return found


def mutate(chance: random.Random, request: Any) -> None:
    """Change parsed JSON at one place."""
    found = places(request)
    if not found:
        return
    held, key = chance.choice(found)
    other_held, other_key = chance.choice(found)
    match chance.randrange(7):
        case 0:
            del held[key]
        case 1:
            held[key] = [held[key]]
        case 2 if isinstance(held, list):
            held.insert(key, deepcopy(held[key]))
        case 2:
            snake = re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", key)
            held[chance.choice([key.upper(), f"{key}s", "", snake])] = held.pop(key)
        case 3:
            held[key] = deepcopy(other_held[other_key])
        case 4 if isinstance(held[key], str) and held[key].isdigit():
            held[key] = str(int(held[key]) + chance.randint(-(10**18), 10**18))
        case 5 if isinstance(held[key], str):
            at = chance.randrange(len(held[key]) + 1)
            held[key] = held[key][:at] + chance.choice(["\x00", "é", "😀", "\ud83d", '"', "\\"])
        case _:
            held[key] = deepcopy(chance.choice(JUNK))


def mutated_bytes(chance: random.Random, data: bytes) -> bytes:
    """The bytes, of which some are others, gone, doubled or new."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(changed) + 1), chance.randrange(9)
        match chance.randrange(5):
            case 0:
                del changed[at : at + length]
            case 1:
                changed[at:at] = changed[at : at + length]
            case 2:
                changed[at:at] = chance.randbytes(length)
            case 3 if chance.random() < 0.2:
                del changed[at:]
            case _ if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def as_json(chance: random.Random, signal: str, request: dict[str, Any]) -> bytes:
    changed = deepcopy(request)
    for _ in range(chance.randint(1, 3)):
        mutate(chance, changed)
    text = json.dumps(changed).encode()
    return mutated_bytes(chance, text) if chance.random() < 0.2 else text


def as_protobuf(chance: random.Random, signal: str, request: dict[str, Any]) -> bytes:
    return mutated_bytes(chance, as_message(signal, request).SerializeToString())


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail where the code hangs."""

    def fail(*_: object) -> None:
        raise AssertionError(f"took longer than {seconds} s")

    before = signals.signal(signals.SIGALRM, fail)
    signals.alarm(seconds)
    try:
        yield
    finally:
        signals.alarm(0)
        signals.signal(signals.SIGALRM, before)


def stored(pool: StoragePool, signal: str) -> int:
    with pool.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(TABLES[signal])) or 0


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("encoded", [as_json, as_protobuf])
@pytest.mark.parametrize("signal", KEYS)
def test_each_item_of_a_mutated_request_is_stored_or_refused_by_name(
    pool: StoragePool, signal: str, encoded: Callable[[random.Random, str, Any], bytes]
) -> None:
    chance = seeded()
    real = real_requests(signal)
    assert real
    began_with = 0
    for number in range(REQUESTS):
        if number % CLEARED_AFTER == 0:
            clear(pool)
        if number == REQUESTS // 5:
            began_with = memory()
        payload = encoded(chance, signal, chance.choice(real))
        before = stored(pool, signal)
        errors: list[StorageError] = []
        result: IngestResult | None = None
        with no_longer_than(MOST_SECONDS):
            try:
                result = INGEST[signal](pool, payload)
            except ValidationError as refused:
                errors = [refused]
            else:
                errors = [one.error for one in result.rejected]
        assert all(isinstance(one, ValidationError) and one.field for one in errors), payload
        if result is None:
            assert stored(pool, signal) == before, payload
            continue
        assert stored(pool, signal) - before == result.accepted - result.duplicates, payload
        if number % EXPORTED_AFTER == 0:
            comes_in_again(pool, signal, payload)
    assert memory() - began_with < MOST_GROWTH


def comes_in_again(pool: StoragePool, signal: str, payload: bytes) -> None:
    """What is stored can be exported, and changes nothing when it comes in again."""
    before = stored(pool, signal)
    for request in list(EXPORT[signal](pool)):
        result = INGEST[signal](pool, json.dumps(request))
        assert result.rejected == [], payload
        assert result.duplicates == result.accepted, payload
    assert stored(pool, signal) == before, payload
