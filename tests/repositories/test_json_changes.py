"""A JSON value of a row that was read is changed in place, and the commit writes it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from observatory_storage import CopyWriter, StorageError, StoragePool, TraceSpan
from tests.repositories.samples import a_span, statements, trace_key

GIVEN: dict[str, Any] = {"list": [1, {"deep": True}], "map": {"n": 1}, "text": "x"}

CHANGES: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "set": (lambda a: a.__setitem__("text", "y"), {**GIVEN, "text": "y"}),
    "delete": (lambda a: a.__delitem__("text"), {k: GIVEN[k] for k in ("list", "map")}),
    "pop": (lambda a: a.pop("text"), {k: GIVEN[k] for k in ("list", "map")}),
    "update": (lambda a: a.update(text="y"), {**GIVEN, "text": "y"}),
    "or": (lambda a: a.__ior__({"text": "y"}), {**GIVEN, "text": "y"}),
    "clear": (lambda a: a.clear(), {}),
    "default": (lambda a: a.setdefault("new", []).append(1), {**GIVEN, "new": [1]}),
    "map in it": (lambda a: a["map"].pop("n"), {**GIVEN, "map": {}}),
    "list in it": (lambda a: a["list"].append(2), {**GIVEN, "list": [*GIVEN["list"], 2]}),
    "map in a list": (lambda a: a["list"][1].clear(), {**GIVEN, "list": [1, {}]}),
    "sorted": (lambda a: a["list"].reverse(), {**GIVEN, "list": GIVEN["list"][::-1]}),
    "added to": (lambda a: a["list"].__iadd__([3]), {**GIVEN, "list": [*GIVEN["list"], 3]}),
}


@pytest.fixture
def filled(pool: StoragePool) -> StoragePool:
    links = [{"trace_id": trace_key(2), "span_id": f"{1:016x}", "attributes": {}}]
    CopyWriter(pool).write_spans([a_span(1, 1, attributes=GIVEN, links=links)])
    return pool


def stored(pool: StoragePool) -> Any:
    with pool.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_key(1))
    return span.attributes


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_at_any_depth_is_committed(filled: StoragePool, name: str) -> None:
    change, expected = CHANGES[name]
    with filled.unit_of_work() as uow:
        # Nothing but the value refers to the row.
        change(uow.traces.get_spans(trace_key(1))[0].attributes)
        uow.commit()
    assert stored(filled) == expected


def test_values_that_were_put_in_are_followed_too(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        (span,) = uow.traces.list_spans(payload=True)
        tags: list[int] = []
        span["attributes"]["tags"] = tags
        tags.append(1)
        uow.commit()
        span.attributes["tags"].append(2)
        span.links[0]["attributes"]["new"] = {}
        uow.commit()
        span.links[0]["attributes"]["new"]["k"] = 3
        uow.commit()
        (again,) = uow.traces.list_spans(payload=True)
    assert again.attributes["tags"] == [1, 2]
    assert again.links[0]["attributes"] == {"new": {"k": 3}}


def test_a_change_without_a_commit_is_not_stored(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        uow.traces.get_spans(trace_key(1))[0].attributes.clear()
        uow.rollback()
        uow.commit()
    assert stored(filled) == GIVEN


def test_a_change_after_the_unit_of_work_can_be_merged(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_key(1))
    span.attributes["text"] = "later"
    assert inspect(span).detached
    with filled.unit_of_work() as other:
        other.session.merge(span)
        other.commit()
    assert stored(filled) == {**GIVEN, "text": "later"}


def test_rows_of_a_session_follow_their_changes_too(filled: StoragePool) -> None:
    with Session(filled.engine) as session:
        session.scalars(select(TraceSpan)).one().attributes["map"]["n"] = 2
        session.commit()
    assert stored(filled) == {**GIVEN, "map": {"n": 2}}


def test_a_row_that_the_session_holds_as_another_object_keeps_its_value(
    filled: StoragePool,
) -> None:
    with filled.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_key(1))
        own = uow.session.get_one(TraceSpan, inspect(span).identity)
        with pytest.raises(StorageError, match="holds the same row as another object"):
            span.attributes["text"] = "lost"
        assert span.attributes == own.attributes == GIVEN


def test_values_are_dictionaries_and_lists_like_any(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        (span,) = uow.traces.get_spans(trace_key(1))
        value = span.attributes
        assert value is span.attributes
        assert value == GIVEN
        assert repr(value) == repr(json.loads(json.dumps(value)))
        assert json.loads(json.dumps(value)) == orjson.loads(orjson.dumps(value)) == GIVEN
        assert json.loads(json.dumps(span.to_dict(json=True)))["attributes"] == GIVEN
        for same in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert (type(same), type(same["list"]), same) == (dict, list, GIVEN)
        for row in (copy.copy(span), copy.deepcopy(span), pickle.loads(pickle.dumps(span))):
            row.attributes["list"].append("of the copy")
        assert span.attributes == GIVEN
        with statements(filled.engine) as seen:
            uow.commit()
        assert not [one for one in seen if "UPDATE" in one]
    assert stored(filled) == GIVEN
