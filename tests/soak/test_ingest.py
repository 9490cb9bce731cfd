"""Requests that somebody has damaged: what is good of them is stored, and the rest is told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from observatory_storage import IngestResult, LogRecord
from observatory_storage.errors import ValidationError
from observatory_storage.pool import StoragePool
from tests.otlp.generated import requests
from tests.otlp.otlp import REQUESTS, as_json, meaning
from tests.otlp.stored import EXPORT, INGEST, all_rows, clear
from tests.soak.scale import examples

Draw = Callable[[st.SearchStrategy[Any]], Any]
KEYS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def nested(depth: int) -> Any:
    value: Any = {"stringValue": "bottom"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


JUNK: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([2**63, 2**64, -1, 10**30, math.nan, math.inf, 1e300, 0.5]),
    st.sampled_from(
        ["", " ", "1", "-1", "1.5", "1e3", "0x10", "NaN", "Infinity", "18446744073709551616"]
    ),
    st.sampled_from(
        ["\x00", "\ud800", "a" * 40, "0" * 32, "f" * 32, "F" * 16, "x" * 5000, "=", "AQID"]
    ),
    st.text(st.characters(), max_size=6),
    st.sampled_from(["[]", "{}", "[[]]", "[null]", '{"": null}', '{"stringValue": 1}']).map(
        json.loads
    ),
    st.integers(1, 300).map(nested),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in parsed JSON: what holds it, and under what key."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        held = pending.pop()
        keys = (
            held if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ()
        )
        for key in keys:
            found.append((held, key))
            pending.append(held[key])
    return found


def damage(draw: Draw, value: Any) -> None:
    """Change the parsed JSON at one place."""
    found = places(value)
    if not found:
        return
    held, key = draw(st.sampled_from(found))
    match draw(st.integers(0, 5)):
        case 0:
            del held[key]
        case 1:
            held[key] = [held[key]]
        case 2 if isinstance(held, list):
            held.insert(key, deepcopy(held[key]))
        case 2:
            held[draw(st.sampled_from([key.upper(), f"{key}s", "", "kind"]))] = held.pop(key)
        case 3:
            _, other = draw(st.sampled_from(found))
            if isinstance(held, dict) and isinstance(other, str):
                held[other] = draw(JUNK)
        case _:
            held[key] = draw(JUNK)


@st.composite
def damaged_items(draw: Draw, signal: str) -> tuple[Any, Any]:
    """A good request, and the same with damaged items among the good ones."""
    good = as_json(draw(rich(signal)))
    resources, scopes, items = KEYS[signal]
    bad = [
        item
        for resource in as_json(draw(rich(signal))).get(resources, ())
        for scope in resource.get(scopes, ())
        for item in scope.get(items, ())
    ]
    lists = [
        scope.setdefault(items, [])
        for resource in good.setdefault(resources, [{}])
        for scope in resource.setdefault(scopes, [{}])
    ]
    whole = deepcopy(good)
    for item in bad:
        apart(item)
        holder = [item]
        for _ in range(draw(st.integers(1, 3))):
            damage(draw, holder)
        if lists:
            into = draw(st.sampled_from(lists))
            at = draw(st.integers(0, len(into)))
            into[at:at] = holder
    return whole, good


def apart(item: dict[str, Any]) -> None:
    """Give the item an identity that no good one has."""
    for key in ("traceId", "spanId"):
        if set(item.get(key, "0")) != {"0"}:
            item[key] = "B" + item[key][1:]
    if "name" in item:
        item["name"] = f"bad {item['name']}"[:1000]


def rich(signal: str) -> st.SearchStrategy[Any]:
    """Requests of which most have something in every field."""
    full = requests(signal, every_field=True)
    return st.one_of(full, full, requests(signal))


FORMS: tuple[Callable[[Any], Any], ...] = (
    lambda request: request,
    json.dumps,
    lambda request: json.dumps(request).encode(),
)


@pytest.mark.parametrize("signal", REQUESTS)
def test_damaged_items_cost_only_themselves(pool: StoragePool, signal: str) -> None:
    @examples(12, 400)
    @given(damaged_items(signal), st.sampled_from(FORMS))
    def check(requests_: tuple[Any, Any], form: Callable[[Any], Any]) -> None:
        whole, damaged = requests_
        clear(pool)
        result = INGEST[signal](pool, form(damaged))
        assert isinstance(result, IngestResult)
        for refused in result.rejected:
            assert isinstance(refused.error, ValidationError)
        good = meaning(signal, [whole])
        assert good <= meaning(signal, EXPORT[signal](pool))
        assert result.accepted >= (0 if signal == "metrics" else sum(good.values()))
        stays(pool, signal)

    check()


@st.composite
def damaged_requests(draw: Draw, signal: str) -> Any:
    """A request damaged anywhere, in any form."""
    request = as_json(draw(rich(signal)))
    for _ in range(draw(st.integers(1, 4))):
        damage(draw, request)
    return draw(st.sampled_from(FORMS))(request)


@st.composite
def damaged_bytes(draw: Draw, signal: str) -> bytes:
    """A request's bytes, of which some are others, gone, doubled or new."""
    message = draw(rich(signal))
    data = bytearray(
        message.SerializeToString()
        if draw(st.booleans())
        else json.dumps(as_json(message)).encode()
    )
    for _ in range(draw(st.integers(1, 5))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        match draw(st.integers(0, 3)):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = data[at : at + length]
            case 2:
                data[at:at] = draw(st.binary(max_size=4))
            case _ if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


@pytest.mark.parametrize("damaged", [damaged_requests, damaged_bytes])
@pytest.mark.parametrize("signal", REQUESTS)
def test_damaged_requests_are_refused_whole_or_by_items(
    pool: StoragePool, signal: str, damaged: Callable[[str], st.SearchStrategy[Any]]
) -> None:
    @examples(16, 800)
    @given(damaged(signal))
    def check(payload: Any) -> None:
        clear(pool)
        try:
            result = INGEST[signal](pool, payload)
        except ValidationError:
            assert not any(all_rows(pool).values())
            return
        assert isinstance(result, IngestResult)
        for refused in result.rejected:
            assert isinstance(refused.error, ValidationError)
        stays(pool, signal)

    check()


def stays(pool: StoragePool, signal: str) -> None:
    """What is stored can be exported, and is the same when it comes in again.

    A log record without any time is another one each time: it has the time of ingest.
    """
    no_time = LogRecord.otlp["time"].astext == "absent"
    with pool.engine.begin() as connection:
        connection.execute(delete(LogRecord).where(no_time, LogRecord.observed_timestamp.is_(None)))
    before = all_rows(pool)
    for request in list(EXPORT[signal](pool)):
        assert INGEST[signal](pool, json.dumps(request)).rejected == []
    assert all_rows(pool) == before
