"""Statements that are made once for many filters hold none of their values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import BindParameter, Select
from sqlalchemy.sql import visitors

from observatory_storage import (
    Exists,
    Not,
    OneOf,
    Prefix,
    SessionFilters,
    StoragePool,
    TraceFilters,
)
from observatory_storage.repositories.logs import log_search
from observatory_storage.repositories.reading.pages import SeekShape
from observatory_storage.repositories.traces import session_statements, trace_statements
from observatory_storage.repositories.traces.filters import template

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ALL = TraceFilters(
    service_name="api",
    operation="chat",
    status="error",
    start_time=MOMENT,
    end_time=MOMENT + timedelta(days=1),
    min_duration_us=1.5,
    max_duration_us=2.5,
    attributes={"one": 1, "two": "2"},
    provider="p",
    model="m",
    user_id="u",
    session_id="s",
    environment="e",
    min_tokens=1,
    max_tokens=2,
    min_cost_usd=Decimal(1),
    max_cost_usd=Decimal(2),
)
OF_SESSIONS = frozenset({"user_id", "service_name", "environment", "start_time", "end_time"})
OPERATORS = TraceFilters(
    service_name=["a", "b"],
    operation=OneOf(Prefix("c"), Prefix("d"), "e"),
    status=Not("error"),
    attributes={"one": OneOf(1, 2), "two": Not(Prefix("x")), "three": 3},
    provider=Exists(),
    model=Prefix("m"),
    user_id=Not("u", "v"),
    environment=Not(Exists()),
    root=True,
    ended_after=MOMENT,
    ended_before=MOMENT + timedelta(days=1),
)
ALL_CONDITIONS = template(frozenset(ALL.parameters()))
BACK = SeekShape(descending=True, from_key=True)
PAGE = {"row_limit", "key_start_time", "key_id"}


def binds(statement: Select[*tuple[Any, ...]]) -> list[BindParameter[Any]]:
    return [one for one in visitors.iterate(statement) if isinstance(one, BindParameter)]


@pytest.mark.parametrize(
    ("statement", "own"),
    [
        (
            trace_statements.matching_nearest(ALL_CONDITIONS, BACK, only_possible=True),
            PAGE | {"trace_limit"},
        ),
        (trace_statements.matching(ALL_CONDITIONS, BACK), PAGE),
        (
            trace_statements.of_newest_spans(ALL_CONDITIONS, BACK),
            PAGE | {"span_limit"},
        ),
        (
            session_statements.from_walked_spans(OF_SESSIONS, BACK),
            {"row_limit", "key_last_start_time", "key_session_id"},
        ),
        (session_statements.by_ids(OF_SESSIONS), {"ids"}),
    ],
)
def test_all_values_are_parameters(statement: Select[Any], own: set[str]) -> None:
    required = {bind.key for bind in binds(statement) if bind.required}
    assert own <= required
    assert required - own <= ALL.parameters().keys()
    constants = [bind.value for bind in binds(statement) if not bind.required]
    assert set(map(str, constants)) <= {"1", "0", "error"}


def test_values_of_operators_are_parameters() -> None:
    made = trace_statements.matching_nearest(
        template(frozenset(OPERATORS.parameters())), BACK, only_possible=True
    )
    constants = {str(bind.value) for bind in binds(made) if not bind.required}
    assert constants <= {"1", "0", "2", "$[*].attributes"}
    asked = {bind.key for bind in binds(made)}
    # Whether a value exists and whether a span is a root is said by the statement itself.
    assert OPERATORS.parameters().keys() - asked == {
        "provider__exists", "not__environment__exists", "root"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", "b"], ("c", "d", "e")),
        (Prefix("a"), Prefix("b")),
        (Not("a"), Not("b")),
        (Not("a", "b"), Not("c", "d", "e")),
    ],
)
def test_the_number_of_values_is_not_part_of_a_statement(one: Any, other: Any) -> None:
    names = [
        frozenset(TraceFilters(model=each, attributes={"k": each}).parameters())
        for each in (one, other)
        if not isinstance(each, (list, tuple))
    ]
    names += [frozenset(TraceFilters(model=each).parameters()) for each in (one, other)]
    assert len(set(names)) == len(names) // 2


def test_every_field_is_asked_for() -> None:
    made = trace_statements.matching_nearest(ALL_CONDITIONS, BACK, only_possible=True)
    of_traces_without_spans = {"min_spanless_duration_us", "max_spanless_duration_us"}
    assert ALL.parameters().keys() - of_traces_without_spans <= {one.key for one in binds(made)}
    bare = TraceFilters(min_duration_us=1, max_duration_us=2)
    made = trace_statements.matching(template(frozenset(bare.parameters())), BACK)
    assert bare.parameters().keys() <= {one.key for one in binds(made)}


def test_the_same_fields_share_a_statement_whatever_their_values(
    shared_pool: StoragePool,
) -> None:
    made = trace_statements.matching_nearest.cache_info
    with shared_pool.unit_of_work() as uow:
        uow.traces.list(TraceFilters(service_name="one", attributes={"a": 1}))
        uow.traces.list_sessions(SessionFilters(user_id="one"))
        before = made().misses, session_statements.from_all_spans.cache_info().misses
        uow.traces.list(TraceFilters(service_name="two", attributes={"b": "c"}, limit=7))
        uow.traces.list_sessions(SessionFilters(user_id="two", limit=7))
        assert (made().misses, session_statements.from_all_spans.cache_info().misses) == before


def test_searches_for_plain_words_share_a_statement(shared_pool: StoragePool) -> None:
    made = trace_statements.walked_or_indexed.cache_info
    with shared_pool.unit_of_work() as uow:
        uow.traces.list(text="one secret")
        uow.logs.search_text("one secret", order="time")
        before = made().misses, log_search._of_slice.cache_info().misses
        uow.traces.list(text="another", limit=70)
        uow.logs.search_text("another", order="time")
        assert (made().misses, log_search._of_slice.cache_info().misses) == before
    names = frozenset(TraceFilters(text="one secret").parameters())
    statement = trace_statements.walked_or_indexed(template(names), BACK, walks=True)
    assert {"words", "letters"} <= {one.key for one in binds(statement)}
    assert not any("secret" in str(one.value) for one in binds(statement))


@pytest.mark.parametrize("text", ['"a phrase"', "begin*", "this or that", "with -out", "a/b"])
def test_statements_with_other_searches_are_not_cached(shared_pool: StoragePool, text: str) -> None:
    """The words say what the condition looks like: each search would be a statement of its own."""
    assert TraceFilters(text=text).kept_names() is None
    made = (trace_statements.walked_or_indexed, log_search._of_slice)
    before = [one.cache_info().currsize for one in made]
    with shared_pool.unit_of_work() as uow:
        uow.traces.list(TraceFilters(text=text))
        uow.logs.search_text(text)
    assert [one.cache_info().currsize for one in made] == before
