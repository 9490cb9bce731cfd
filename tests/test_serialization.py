"""`to_dict` of rows, pages and results, and what other libraries make of these."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import flask
import pandas as pd
import pydantic
import pytest
import sqlalchemy as sa

import observatory_storage
from observatory_storage import (
    CopyWriter,
    IngestResult,
    LogRecord,
    Metric,
    MetricDataPoint,
    Operation,
    Page,
    Rejected,
    SpanTree,
    StorageError,
    StoragePool,
    Trace,
    TraceEvent,
    TraceSpan,
    TraceStats,
)
from observatory_storage.models import Base
from observatory_storage.repositories.reading.operators import Operator
from observatory_storage.serialization import Result, to_json
from tests.repositories.lists import LISTS, Listing

NOON = datetime(2024, 5, 17, 12, 30, tzinfo=UTC)
ID = UUID("5b8efff7-9803-8103-d269-b633813fc60c")
MODELS = [Trace, TraceSpan, TraceEvent, Metric, MetricDataPoint, LogRecord]
each_list = pytest.mark.parametrize("listing", LISTS, ids=lambda listing: listing.name)


def a_span(**given: Any) -> TraceSpan:
    default = {"trace_id": ID, "span_id": "a" * 16, "name": "chat", "service_name": "s"}
    return TraceSpan(**{**default, "start_time": NOON, "start_ns": 0, "end_ns": 0, **given})


@pytest.mark.parametrize("model", MODELS)
def test_a_row_becomes_its_loaded_columns(model: type[Base]) -> None:
    names = [column.key for column in sa.inspect(model).column_attrs]
    values = {name: f"value of {name}" for name in reversed(names)}
    row = model(**values)
    assert row.to_dict() == values
    assert list(row.to_dict()) == names
    assert model().to_dict() == {}


def test_a_row_is_a_mapping_of_its_loaded_columns() -> None:
    span = TraceSpan(name="chat", attributes={"a": 1})
    assert dict(span) == {"name": "chat", "attributes": {"a": 1}}
    assert {**span, "name": "other"}["name"] == "other"
    assert (span["name"], span.get("kind"), span.get("kind", "client")) == ("chat", None, "client")
    assert (list(span), len(span), "kind" in span) == (["name", "attributes"], 2, False)
    assert list(span.values()) == ["chat", {"a": 1}]
    assert TraceSpan()  # a row is true, whatever it holds
    assert span != TraceSpan(name="chat", attributes={"a": 1})
    with pytest.raises(KeyError):
        span["kind"]
    with pytest.raises(TypeError, match="'statsu' is not an attribute of TraceSpan"):
        TraceSpan(statsu="ok")


def test_a_row_for_json() -> None:
    zone = timezone(timedelta(hours=2))
    span = a_span(start_time=NOON.astimezone(zone), total_cost_usd=Decimal("0.10"), ttft_ms=1.5)
    found = span.to_dict(json=True)
    assert json.loads(json.dumps(found)) == found
    assert found["start_time"] == "2024-05-17T12:30:00Z"
    assert found["trace_id"] == "5b8efff7-9803-8103-d269-b633813fc60c"
    assert found["total_cost_usd"] == "0.10"
    assert found["ttft_ms"] == 1.5


def test_loaded_collections_are_part_of_a_row_and_what_it_belongs_to_is_not() -> None:
    span = a_span(events=[TraceEvent(name="first", timestamp=NOON)])
    span.trace = Trace(id=ID, spans=[span])
    assert span.to_dict(json=True)["events"] == [
        {"name": "first", "timestamp": "2024-05-17T12:30:00Z"}
    ]
    assert "trace" not in span.to_dict()
    assert span.trace.to_dict()["spans"] == [span.to_dict()]


@each_list
def test_pages_become_dictionaries_frames_and_responses(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, [1, 2, 3])
    with pool.unit_of_work() as uow:
        page = listing.page(uow, limit=2)
    found = page.to_dict(json=True)
    assert list(found) == ["rows", "next", "previous", "total", "total_kind"]
    assert found["rows"] == [row.to_dict(json=True) for row in page]
    assert found["next"] == page.next
    frame = pd.DataFrame(page)
    assert list(frame.columns) == list(page[0].keys())
    assert len(frame) == 2
    with flask.Flask(__name__).app_context():
        assert flask.jsonify(found).get_json() == found


def test_every_result_has_to_dict() -> None:
    public = [getattr(observatory_storage, name) for name in observatory_storage.__all__]
    results = [
        kind
        for kind in public
        if inspect.isclass(kind)
        and is_dataclass(kind)
        and not kind.__name__.endswith(("Filters", "Query", "Config"))
        and kind.__name__ not in ("LlmSpan", "TailSampling")
        and not issubclass(kind, Operator)
    ]
    assert len(results) > 15
    assert [kind for kind in results if not issubclass(kind, Result)] == []
    assert not [kind for kind in results if hasattr(kind, "__slots__") and "__dict__" in dir(kind)]


def test_the_fields_of_a_result_are_its_dictionary() -> None:
    stats = TraceStats(*range(len(fields(TraceStats))))
    assert list(stats.to_dict()) == [field.name for field in fields(TraceStats)]
    assert Operation("chat", "client").to_dict(json=True) == {"name": "chat", "kind": "client"}
    rejected = IngestResult(1, [Rejected(0, {"name": "x"}, StorageError("too late"))])
    assert rejected.to_dict(json=True) == {
        "accepted": 1,
        "rejected": [{"index": 0, "row": {"name": "x"}, "error": "too late"}],
        "repaired": 0,
        "duplicates": 0,
        "signal": "traces",
        "dropped": [],
        "dropped_by_rules": 0,
    }
    page = Page((stats,))
    assert page.to_dict()["rows"] == (stats.to_dict(),)
    assert list(pd.DataFrame(page).columns) == list(stats.to_dict())


def test_a_tree_is_flat_however_deep_it_is() -> None:
    spans = [
        a_span(
            span_id=f"{number:016x}",
            parent_span_id=None if number == 0 else f"{number - 1:016x}",
            start_time=NOON + timedelta(microseconds=number),
            end_time=NOON + timedelta(seconds=1),
        )
        for number in range(5000)
    ]
    found = SpanTree.of(spans).to_dict(json=True)
    assert json.loads(json.dumps(found)) == found
    assert [node["parent"] for node in found["nodes"]] == [None, *range(4999)]
    assert found["nodes"][3]["span"]["span_id"] == f"{3:016x}"
    assert found["critical_path"][0] == {"node": 0, "offset_ns": 0, "duration_ns": 1000}


def test_pydantic_reads_rows_by_their_attributes(pool: StoragePool) -> None:
    class SpanOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        span_id: str
        start_time: datetime
        total_cost_usd: Decimal | None

    CopyWriter(pool).write_spans([a_span(total_cost_usd=Decimal("0.1"))])
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.list_spans()
    out = SpanOut.model_validate(span)
    assert out.model_dump(mode="json") == {
        name: span.to_dict(json=True)[name] for name in SpanOut.model_fields
    }


def test_values_of_every_kind_for_json() -> None:
    given = {"error": ValueError("x"), "set": {1}, "nested": [(NOON, None)], 5: 0.5}
    assert to_json(given) == {
        "error": "x",
        "set": [1],
        "nested": [["2024-05-17T12:30:00Z", None]],
        "5": 0.5,
    }
