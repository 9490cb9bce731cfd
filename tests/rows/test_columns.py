"""Every column of every table is checked, whatever it is given."""

from __future__ import annotations

import enum
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observatory_storage import ValidationError
from observatory_storage.models import Base
from observatory_storage.rows import Row
from observatory_storage.tables import TABLES
from tests.rows.samples import LEAST, MODELS, NOON, PREPARE, prepared

ALL_COLUMNS = [
    (name, column.name) for name, table in TABLES.items() for column in table.table.columns
]
# What one column's value may make wrong in another.
RELATED = {
    "start_time": {"end_time"},
    "end_ns": {"end_time"},
    "start_ns": {"end_time"},
    "timestamp": {"start_timestamp"},
    "max": {"min"},
    "resource_attributes": {"service_name"},
}


class Colour(enum.Enum):
    RED = "red"


class Word(str, enum.Enum):  # noqa: UP042 - as older programs write it
    OK = "ok"


text = st.text(st.sampled_from("aZ0-_.é\x00\ud800\udc00\U0001f600\n "), max_size=8)
numbers = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 999, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400]),
    # Not written out here: what reports a failure could not show it either.
    st.just(5000).map(lambda digits: 10**digits),
    st.floats(),
    st.decimals(),
    st.sampled_from([Decimal("sNaN"), Decimal("1E+999999"), Decimal("1E-999999")]),
    st.fractions(),
    st.complex_numbers(),
)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
scalars = st.one_of(
    st.none(),
    text,
    st.binary(max_size=20),
    numbers,
    st.datetimes(),
    st.datetimes(timezones=offsets),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.uuids().map(str),
    st.from_regex(r"\A[0-9a-fA-F]{16}\Z"),
    st.sampled_from(["ok", "client", "gauge", "delta", Colour.RED, Word.OK, object(), ..., len]),
    st.sampled_from([datetime, Fraction(1, 3), range(3), memoryview(b"x"), Base]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(text, st.integers(), st.none(), st.floats()), inner, max_size=2),
        st.fixed_dictionaries({}, optional=dict.fromkeys(("quantile", "value", "counts"), inner)),
    ),
    max_leaves=4,
)
quick = settings(max_examples=100, derandomize=True, deadline=None, database=None)


def outcome(table: str, row: Any) -> Row | ValidationError:
    """What becomes of a row. No other error may leave, and none that cannot be told."""
    try:
        return PREPARE[table](row)
    except ValidationError as error:
        assert str(error)  # noqa: PT017 - it is one of two good ends
        return error


# Any value is JSON there, if need be by its repr.
TYPED_COLUMNS = [*ALL_COLUMNS, ("trace_spans", "events")]
TYPED_COLUMNS.remove(("logs", "body_json"))


@pytest.mark.parametrize(("table", "column"), TYPED_COLUMNS)
def test_a_value_of_the_wrong_type_is_refused_by_name(table: str, column: str) -> None:
    with pytest.raises(ValidationError) as caught:
        prepared(table, **{column: object()})
    assert caught.value.field == column


@pytest.mark.parametrize(
    ("table", "column"), [(table, name) for table, name in ALL_COLUMNS if name not in LEAST[table]]
)
def test_none_is_the_same_as_a_missing_column(table: str, column: str) -> None:
    assert prepared(table, **{column: None}).keys() == prepared(table).keys()


@pytest.mark.parametrize("table", LEAST)
def test_any_value_in_any_column_is_taken_or_refused(table: str) -> None:
    columns = MODELS[table].__table__.columns.keys()

    @quick
    @given(column=st.sampled_from(columns), value=anything)
    def check(column: str, value: Any) -> None:
        result = outcome(table, LEAST[table] | {column: value})
        if isinstance(result, Row):
            assert len(result.values) == len(TABLES[table].columns)
        else:
            refused = re.split(r"[.\[]", result.field)[0]
            assert refused == column or refused in RELATED.get(column, ())

    check()


@pytest.mark.parametrize("table", LEAST)
def test_any_row_is_taken_or_refused(table: str) -> None:
    columns = [*MODELS[table].__table__.columns.keys(), "events"]
    keys = st.one_of(st.sampled_from(columns), text, st.integers(), st.none())

    @quick
    @given(st.dictionaries(keys, anything, max_size=5))
    def check(row: dict[Any, Any]) -> None:
        for values in (row, LEAST[table] | row):
            assert outcome(table, values)

    check()


@pytest.mark.parametrize("values", [{}, {"name": "e"}, {"name": "e", "timestamp": NOON}])
def test_any_events_are_taken_or_refused(values: dict[str, Any]) -> None:
    columns = MODELS["trace_events"].__table__.columns.keys()

    @quick
    @given(
        st.one_of(
            anything,
            st.lists(st.dictionaries(st.sampled_from(columns), anything, max_size=4), max_size=3),
        )
    )
    def check(events: Any) -> None:
        if isinstance(events, list):
            events = [values | event if isinstance(event, dict) else event for event in events]
        result = outcome("trace_spans", LEAST["trace_spans"] | {"events": events})
        if isinstance(result, Row):
            assert events is None or len(result.events or ()) == len(events)
        else:
            assert result.field.startswith("events")

    check()
