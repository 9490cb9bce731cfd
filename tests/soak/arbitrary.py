"""Rows of the six tables with any values at all, and what should be read back of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage.models import KINDS, METRIC_TYPES, STATUSES, TEMPORALITIES
from observatory_storage.tables import TABLES, TableDefinition
from tests.soak import reading_back as read
from tests.soak.reading_back import MOST_BYTES_OF_A_NAME, Reader, Refused, repairs
from tests.writers.helpers import START, Row

__all__ = ["KINDS_OF", "Case", "rows_of"]

Values = st.SearchStrategy[Any]
_MICROSECOND: Final = timedelta(microseconds=1)
_MOST: Final = 2**63 - 1

_ANY_TEXT: Final = st.one_of(
    st.text(st.sampled_from("\x00\ud800\udbff\udc00\udfff\ufffda\\\"'\n\x07é😀"), max_size=6),
    st.text(st.characters(), max_size=12),
    st.text(max_size=5).map(lambda part: part * 40),
)
_NAMES: Final = st.one_of(
    _ANY_TEXT,
    *(
        st.sampled_from([character * number, character * (number + 1)])
        for character in "x\x00é😀\ud800"
        for number in [MOST_BYTES_OF_A_NAME // len(read.text(character).encode())]
    ),
)
_FLOATS: Final = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1e15, 1e16, -1e16, 1e22, 1.7976931348623157e308, 0.1]),
)
_NO_NUMBERS: Final = st.sampled_from([math.nan, math.inf, -math.inf])
_INTEGERS: Final = st.one_of(
    st.integers(),
    st.sampled_from([2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**4299, -(10**30)]),
)
_DECIMALS: Final = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from([Decimal("0.10"), Decimal("1E+30"), Decimal("1E-90"), Decimal("-0")]),
)
_ZONES: Final = st.one_of(
    st.just(UTC),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")]),
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
_NAIVE: Final = START.replace(tzinfo=None)
# Mostly of a few days: each other one is a partition more.
_TIMES: Final = st.one_of(
    *[
        st.timedeltas(timedelta(0), timedelta(days=2)).map(lambda after: START + after),
        st.sampled_from([_FIRST, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), _LAST]),
        st.datetimes(_NAIVE, _NAIVE + timedelta(days=2), timezones=_ZONES),
    ]
    * 3,
    st.datetimes(timezones=_ZONES),
)
_LEAVES: Final = st.one_of(
    st.none(),
    st.booleans(),
    _ANY_TEXT,
    _INTEGERS,
    _FLOATS,
    _NO_NUMBERS,
    _DECIMALS,
    st.uuids(),
    _TIMES,
    st.dates(),
)
_KEYS: Final = st.one_of(_ANY_TEXT, _ANY_TEXT, st.integers(), _FLOATS, st.booleans(), st.none())


def _containers(inside: Values) -> Values:
    lists = st.lists(inside, max_size=4)
    return st.one_of(lists, lists.map(tuple), st.dictionaries(_KEYS, inside, max_size=4))


_JSON: Final = st.recursive(_LEAVES, _containers, max_leaves=12)
_OBJECTS: Final = st.one_of(
    st.dictionaries(_ANY_TEXT, _JSON, max_size=4),
    st.dictionaries(_KEYS, _JSON, max_size=4),
    st.deferred(lambda: st.integers(0, 100).map(_nested)),
)


def _nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"down": [value]}
    return value


class Kind(NamedTuple):
    """Values for a kind of column: mostly good ones, bad ones, and what is read back of any."""

    values: Values
    bad: Values
    read: Reader


_NO_TEXT: Final = st.sampled_from([5, b"text", 1.5, ["text"], {"text": 1}])
# Any value within an object becomes JSON: only what is no object is refused.
_BAD_OBJECTS: Final = st.sampled_from(["text", 5, [], [{"a": 1}], True])

TEXT: Final = Kind(_ANY_TEXT, _NO_TEXT, read.text)
NAME: Final = Kind(_NAMES, st.one_of(_NO_TEXT, st.just("")), read.name)
DOUBLE: Final = Kind(
    st.one_of(_FLOATS, _INTEGERS, _DECIMALS),
    st.one_of(_NO_NUMBERS, st.sampled_from([True, "1", None, 10**400, Decimal("sNaN")])),
    read.double,
)
POSITIVE: Final = Kind(DOUBLE.values, DOUBLE.bad, read.not_negative)
COST: Final = Kind(
    st.one_of(
        _FLOATS,
        st.integers(0, 10**40),
        st.decimals(0, allow_nan=False, allow_infinity=False),
        st.decimals(0, 10**6, allow_nan=False, allow_infinity=False).map(str),
    ),
    st.one_of(_NO_NUMBERS, st.sampled_from([True, "dear", -1, Decimal("1E+101"), Decimal("NaN")])),
    read.cost,
)
TIME: Final = Kind(
    _TIMES,
    st.sampled_from(
        [
            _NAIVE,
            START.isoformat(),
            START.timestamp(),
            date(2026, 3, 14),
            _FIRST.replace(tzinfo=timezone(timedelta(hours=1))),
        ]
    ),
    read.moment,
)
OBJECT: Final = Kind(_OBJECTS, _BAD_OBJECTS, read.json_object)
OBJECTS: Final = Kind(
    st.lists(_OBJECTS, max_size=3),
    st.one_of(_BAD_OBJECTS.filter(lambda value: value not in ([], [{"a": 1}])), st.just([1])),
    read.json_objects,
)
JSON: Final = Kind(_JSON, st.nothing(), read.json)
UUIDS: Final = Kind(st.uuids(), st.sampled_from(["no uuid", 5]), read.uuid)
TRACE_ID: Final = Kind(UUIDS.values, st.sampled_from(["", 5, b"text", UUID(int=0)]), read.trace_id)
SPAN_ID: Final = Kind(
    st.integers(1, 2**64 - 1).map(lambda number: f"{number:016X}"),
    st.sampled_from(["", "0" * 16, "1" * 15, "g" * 16, 5]),
    read.span_id,
)


def integers(least: int, most: int) -> Kind:
    return Kind(
        st.one_of(st.integers(least, most), st.sampled_from([least, most])),
        st.sampled_from([least - 1, most + 1, True, "1", 1.5, math.nan]),
        read.integer(least, most),
    )


def choice(values: tuple[str, ...]) -> Kind:
    return Kind(st.sampled_from(values), st.sampled_from(["", "other", 1]), read.one_of(values))


COUNT: Final = integers(0, _MOST)
# A trace counts those of all its spans, as far as a bigint can.
TOKENS: Final = COUNT._replace(values=st.integers(0, 2**58))
FRACTION: Final = integers(0, 999)

# Kinds that do not follow from a column's type; "table.column" wins over "column".
_KINDS: Final[dict[str, Kind]] = {
    "status": choice(STATUSES),
    "kind": choice(KINDS),
    "metric_type": choice(METRIC_TYPES),
    "temporality": choice(TEMPORALITIES),
    **dict.fromkeys(("name", "service_name", "model", "user_id", "session_id"), NAME),
    **dict.fromkeys(("span_id", "parent_span_id"), SPAN_ID),
    "trace_id": TRACE_ID,
    **dict.fromkeys(
        (f"trace_spans.{part}_tokens" for part in ("prompt", "completion", "total")), TOKENS
    ),
    "sample_weight": integers(1, 2**31 - 1),
    "severity_number": integers(1, 24),
    "trace_flags": integers(0, 2**32 - 1),
    "ttft_ms": POSITIVE,
    **dict.fromkeys(("links", "exemplars"), OBJECTS),
    "body_json": JSON,
}
_KINDS_OF_TYPES: Final[dict[type[Any], Kind]] = {
    sa.Text: TEXT,
    sa.Uuid: UUIDS,
    sa.DateTime: TIME,
    sa.SmallInteger: FRACTION,
    sa.BigInteger: COUNT,
    sa.Double: DOUBLE,
    sa.Numeric: COST,
    JSONB: OBJECT,
}
# They follow from others, or have rules that tests of their own check.
_NOT_GIVEN: Final = {
    *("id", "duration_us", "duration_ns", "buckets", "quantiles"),
    *("response_id", "reported_usage", "cost_source", "reported_cost_source"),
}
REQUIRED: Final[dict[str, frozenset[str]]] = {
    "traces": frozenset({"start_time"}),
    "trace_spans": frozenset({"name", "start_time"}),
    "trace_events": frozenset({"span_start_time", "name", "timestamp"}),
    "metrics": frozenset({"metric_type"}),
    "metric_data_points": frozenset({"metric_id", "timestamp"}),
    "logs": frozenset({"timestamp"}),
}
# What tells the rows of a batch apart, and is good always.
IDENTITIES: Final[dict[str, Callable[[int], Row]]] = {
    "traces": lambda place: {"trace_id": f"{place + 1:032x}"},
    "trace_spans": lambda place: {
        "trace_id": f"{place % 2 + 1:032x}",
        "span_id": f"{place + 1:016x}",
    },
    "trace_events": lambda place: {
        "trace_id": UUID(int=1).hex,
        "span_id": "1" * 16,
        "position": place,
    },
    "metrics": lambda place: {"name": f"metric {place}"},
    "metric_data_points": lambda place: {"id": UUID(int=place + 1)},
    "logs": lambda place: {"id": UUID(int=place + 1)},
}


def _kinds_of(table: TableDefinition) -> dict[str, Kind]:
    return {
        name: _KINDS.get(f"{table.name}.{name}")
        or _KINDS.get(name)
        or _KINDS_OF_TYPES[type(table.table.c[name].type)]
        for name in table.columns
        if name not in _NOT_GIVEN and name not in IDENTITIES[table.name](0)
    }


KINDS_OF: Final = {name: _kinds_of(table) for name, table in TABLES.items()}


class Case(NamedTuple):
    """A row to write.

    Attributes:
        row: as it is given.
        identity: what tells it from the others, as it is read back.
        expected: what is read back of its columns; None where it is refused.
        refused: for what columns it may be refused.
        repaired: whether something in it has to be repaired.
    """

    row: Row
    identity: Row
    expected: Row | None
    refused: frozenset[str]
    repaired: bool


@st.composite
def rows_of(draw: Callable[[Values], Any], table: str, most: int) -> list[Case]:
    """A batch of rows of a table, of which some are to be refused."""
    kinds = KINDS_OF[table]
    cases = []
    for place in range(draw(st.integers(1, most))):
        row = {
            column: draw(kind.values)
            for column, kind in kinds.items()
            if column in REQUIRED[table] or draw(st.booleans())
        }
        if draw(st.integers(0, 2)) == 0:
            # Any value of JSON is taken.
            spoilt = draw(st.sampled_from(sorted(c for c in kinds if kinds[c] is not JSON)))
            row[spoilt] = draw(kinds[spoilt].bad)
        cases.append(_case(table, place, row))
    return cases


def _case(table: str, place: int, given: Row) -> Case:
    identity = IDENTITIES[table](place)
    expected, refused, before = {}, set(), repairs.count
    for column, value in given.items():
        if value is None:  # as if it were not given
            if column in REQUIRED[table]:
                refused.add(column)
            continue
        try:
            expected[column] = KINDS_OF[table][column].read(value)
        except (Refused, RecursionError):
            refused.add(column)
    refused |= _at_odds(table, expected)
    return Case(
        {**identity, **given},
        {**identity, **_as_stored(identity)},
        None if refused else expected,
        frozenset(refused),
        repairs.count > before,
    )


def _as_stored(identity: Row) -> Row:
    return {"trace_id": UUID(identity["trace_id"])} if "span_id" in identity else {}


def _at_odds(table: str, values: Mapping[str, Any]) -> set[str]:
    """Columns that do not fit others."""
    found = set()
    start, end = values.get("start_time"), values.get("end_time")
    if start and end:
        ns = values.get("end_ns", 0) - values.get("start_ns", 0) if table == "trace_spans" else 0
        if (end - start) // _MICROSECOND * 1000 + ns < 0:
            found.add("end_time")
    least, greatest = values.get("min"), values.get("max")
    if least is not None and greatest is not None and least > greatest:
        found.add("min")
    start, end = values.get("start_timestamp"), values.get("timestamp")
    if start and end and start > end:
        found.add("start_timestamp")
    return found
