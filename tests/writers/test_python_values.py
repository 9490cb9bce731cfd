"""Values that JSON does not have are stored through every direct way of writing."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from observatory_storage.errors import ValidationError
from observatory_storage.llm import LlmSpan
from observatory_storage.models import LogRecord, MetricDataPoint, TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows import columnar, prepare, prepare_all
from observatory_storage.tables import LOGS, SPANS
from observatory_storage.writers import CopyWriter, LogWriter, MetricWriter, TraceWriter
from tests.writers.helpers import a_log, a_metric, a_point, a_span, event, fetch


class Model(enum.Enum):
    SMALL = "gpt-4o-mini"


class Silent:
    __slots__ = ()

    def __repr__(self) -> str:
        raise RuntimeError


@dataclass
class Setting:
    category: str
    names: set[str]


GIVEN: dict[Any, Any] = {
    "safety_settings": [Setting("harm", {"b", "a"})],
    "raw": b"\x00\xff",
    "path": Path("data") / "x",
    "score": np.float32(0.5),
    "queue": deque([1]),
    "gen_ai.request.model": Model.SMALL,
    "gen_ai.usage.input_tokens": np.int64(7),
    5: "five",
}
STORED = {
    "safety_settings": [{"category": "harm", "names": ["a", "b"]}],
    "raw": "AP8=",
    "path": "data/x",
    "score": 0.5,
    "queue": [1],
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 7,
    "5": "five",
}


def check(row: dict[str, Any]) -> None:
    assert row["attributes"].items() >= STORED.items()
    # The columns are read from what is stored.
    assert (row["model"], row["prompt_tokens"]) == ("gpt-4o-mini", 7)


def test_a_writer_stores_them_one_by_one_and_as_a_list(pool: StoragePool) -> None:
    rows = [a_span(1, n, attributes={"n": n}) for n in range(1, 30)]
    odd = a_span(1, 40, attributes=GIVEN, links=[{"span_id": "a" * 16, "attributes": {"s": {1}}}])
    with TraceWriter(pool) as writer:
        writer.write_spans([*rows[:9], odd, *rows[9:]])
        writer.write_span(a_span(1, 41, attributes=GIVEN, events=[event("e", attributes=GIVEN)]))
        writer.write_span(TraceSpan(**a_span(1, 42, attributes=GIVEN)))
        writer.flush()
        assert writer.write_stats().repaired == 0
        writer.write_spans([*rows, a_span(1, 43, attributes={"a": Silent(), "b": float("nan")})])
        writer.flush()
        assert writer.write_stats().repaired == 2
    stored = fetch(pool, TraceSpan, "span_id")
    assert len(stored) == 33
    for row in stored[29:32]:
        check(row)
    assert stored[29]["links"] == [{"span_id": "a" * 16, "attributes": {"s": [1]}}]
    assert fetch(pool, TraceEvent)[0]["attributes"] == STORED
    assert stored[32]["attributes"] == {"a": "<Silent>", "b": "NaN"}


@pytest.mark.parametrize("count", [1, 150])
def test_a_copy_writer_stores_them(pool: StoragePool, count: int) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(1, n, attributes=GIVEN) for n in range(1, count + 1)])
    for row in fetch(pool, TraceSpan):
        check(row)
    writer.write_logs([a_log(attributes=GIVEN, body=None, body_json={1, 2})] * count)
    logs = fetch(pool, LogRecord)
    assert [row["body_json"] for row in logs] == [[1, 2]] * count
    assert logs[0]["attributes"] == STORED


def test_logs_and_data_points_store_them(pool: StoragePool) -> None:
    with LogWriter(pool) as logs, MetricWriter(pool) as metrics:
        logs.write_log(a_log(body=None, body_json=ValueError("bad"), resource_attributes=GIVEN))
        metric = metrics.write_metric(a_metric(attributes={"unit": {1}}, resource_attributes=GIVEN))
        metrics.write_data_point(a_point(metric, attributes=GIVEN))
        # Equal attributes give the id of one series, whatever they were written as.
        metrics.write_data_point(a_point(metric, 1, attributes=STORED))
    row = fetch(pool, LogRecord)[0]
    assert (row["body_json"], row["resource_attributes"]) == ("ValueError: bad", STORED)
    points = fetch(pool, MetricDataPoint)
    assert [point["attributes"] for point in points] == [STORED] * 2
    assert len({point["id"] for point in points}) == 1


def test_a_call_to_a_model_stores_them(pool: StoragePool) -> None:
    call = LlmSpan(
        model="m",
        attributes={**GIVEN, "user.id": Model.SMALL},
        events=[event("e", attributes=GIVEN)],
    )
    with TraceWriter(pool) as writer:
        writer.write_span_from_llm(call)
    row = fetch(pool, TraceSpan)[0]
    assert row["attributes"].items() >= (STORED | {"gen_ai.request.model": "m"}).items()
    assert (row["prompt_tokens"], row["user_id"]) == (7, "gpt-4o-mini")
    assert fetch(pool, TraceEvent)[0]["attributes"] == STORED


def test_rows_that_a_session_adds_store_them(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span()])  # makes the partition
    with pool.unit_of_work() as uow:
        span = uow.traces.list_spans(payload=True).rows[0]
        span.attributes["new"] = GIVEN
        uow.session.add(TraceSpan(**span.to_dict() | {"span_id": "b" * 16, "attributes": GIVEN}))
        uow.commit()
    changed, added = fetch(pool, TraceSpan, "span_id")
    assert (changed["attributes"], added["attributes"]) == ({"new": STORED}, STORED)


def test_one_odd_row_does_not_slow_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[Any] = []

    def counting(table: Any, row: Any) -> Any:
        alone.append(row)
        return prepare(table, row)

    monkeypatch.setattr(columnar, "prepare", counting)
    rows = [a_span(1, n, attributes={"n": n}) for n in range(1, 101)]
    odd = [a_span(1, n, attributes={"n": value}) for n, value in enumerate(({1}, "\x00"), 200)]
    late = a_span(1, 300, events=[event("e", attributes={"x": float("nan")})])
    given = [*rows[:50], odd[0], *rows[50:90], late, *rows[90:97], odd[1]]
    prepared = prepare_all(SPANS, given)
    assert alone == [odd[0], late, odd[1]]
    assert [row.as_dict()["span_id"] for row in prepared] == [row["span_id"] for row in given]
    assert [row.repairs for row in prepared if row.repairs] == [1, 1]


def test_an_error_names_the_row_and_the_place() -> None:
    good = a_log()
    with pytest.raises(ValidationError) as caught:
        prepare_all(LOGS, [good] * 9 + [a_log(severity_number=99)])
    assert (caught.value.index, caught.value.field) == (9, "severity_number")
    span = a_span(events=[event("e"), event("f", attributes=5)], links=[])
    with pytest.raises(ValidationError) as caught:
        prepare_all(SPANS, [a_span(1, 2)] * 9 + [span])
    assert (caught.value.index, caught.value.field) == (9, "events[1].attributes")
    with pytest.raises(ValidationError) as caught:
        prepare(SPANS, a_span(links=[{}, {"span_id": 5}]))
    assert caught.value.field == "links[1].span_id"
