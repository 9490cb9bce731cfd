"""Ids are computed. They are the same on every machine and differ if the content differs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import RFC_4122, UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observatory_storage import ValidationError, ids, jsonb

HEX = "5b8efff798038103d269b633813fc60c"
DASHED = "5b8efff7-9803-8103-d269-b633813fc60c"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAN = float("nan")
quick = settings(max_examples=200, derandomize=True, deadline=None, database=None)

# UUID(hex=…) of Python accepts all of these as (almost) the same as HEX.
LIKE_HEX = [
    "0x" + HEX[2:],
    "0X" + HEX[2:],
    "+" + HEX[1:],
    "-" + HEX[1:],
    " " + HEX[1:],
    HEX[:-1] + " ",
    HEX + "\n",
    " " + HEX,
    "{" + HEX + "}",
    "{" + DASHED + "}",
    "urn:uuid:" + DASHED,
    "uuid:" + HEX,
    HEX[:8] + "-" + HEX[8:],
    HEX[:4] + "_" + HEX[5:],
    DASHED + "-",
    HEX[:-1],
    HEX + "0",
    HEX[:-1] + "\N{FULLWIDTH LATIN SMALL LETTER C}",
    HEX[:-1] + "\N{ARABIC-INDIC DIGIT THREE}",
    HEX[:-1] + "\N{LATIN SMALL LETTER LONG S}",
]


def test_a_hexadecimal_id_is_its_uuid() -> None:
    for form in (HEX, HEX.upper(), DASHED, DASHED.upper(), UUID(HEX)):
        assert ids.trace_uuid(form) == UUID(HEX)
    assert ids.trace_text(HEX.upper()) == HEX
    assert ids.trace_text(UUID(HEX)) == HEX
    assert ids.trace_text(DASHED.upper()) == DASHED


def test_text_that_only_looks_hexadecimal_has_its_own_uuid() -> None:
    found = {ids.trace_uuid(value) for value in (HEX, *LIKE_HEX)}
    assert len(found) == 1 + len(set(LIKE_HEX))
    for value in LIKE_HEX:
        assert ids.trace_uuid(value).version == 5
        assert ids.trace_text(value) == value
        with pytest.raises(ValidationError, match="must be a UUID"):
            ids.uuid_of(value, "id")


@quick
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_other_texts_have_other_uuids(left: str, right: str) -> None:
    cleaned = [text.replace("\x00", "\ufffd") for text in (left, right)]
    same = ids.trace_uuid(left) == ids.trace_uuid(right)
    assert same == (cleaned[0] == cleaned[1])
    # A computed UUID can also be found by its own text.
    assert ids.trace_uuid(str(ids.trace_uuid(left))) == ids.trace_uuid(left)


@quick
@given(st.uuids().filter(lambda value: value.int != 0))
def test_every_form_of_a_uuid_is_that_uuid(value: UUID) -> None:
    assert {ids.trace_uuid(form) for form in (value, value.hex, str(value))} == {value}
    assert {ids.uuid_of(form, "id") for form in (value, value.hex, str(value))} == {value}


def pinned() -> dict[str, UUID]:
    """These ids are stored in databases, so they must never change."""
    return {
        "trace": ids.trace_uuid("order-17"),
        "trace, not ASCII": ids.trace_uuid("Bestellung Ä \U0001f600"),
        "trace, repaired": ids.trace_uuid("a\x00\ud800"),
        "metric": ids.metric_id(name="requests", metric_type="counter"),
        "metric, whole": ids.metric_id(
            name="latency",
            metric_type="histogram",
            unit="ms",
            temporality="delta",
            resource_attributes={"service.name": "chat", "host": {"cpus": 4, "load": 0.25}},
            scope_name="app",
            scope_version="1",
            scope_attributes={"a": [1, 1.0, True, None]},
            origin={"resource": "https://opentelemetry.io/schemas/1.30.0"},
        ),
        "point": ids.data_point_id(),
        "point, whole": ids.data_point_id(
            attributes={"path": "/é", "tiny": 1e-7, "huge": 1e22, "big": 2**70, "none": NAN},
            start_timestamp=NOON + timedelta(microseconds=1),
            origin={"time_ns": 7},
        ),
        "log": ids.log_id({"body": "hello", "timestamp": NOON, "attributes": {"n": 1}}, 0),
        "log, again": ids.log_id({"body": "hello", "timestamp": NOON, "attributes": {"n": 1}}, 1),
    }


def test_known_inputs_keep_their_ids() -> None:
    assert {what: str(value) for what, value in pinned().items()} == {
        "trace": "d404971a-6844-5c27-965b-f1b82009dae8",
        "trace, not ASCII": "d6aefeb3-e068-5f12-99db-9e8e3c7686ab",
        "trace, repaired": "9771a563-b533-5872-af7c-f25915d26251",
        "metric": "0033f2c9-972b-5074-9ceb-b3f1ff62311e",
        "metric, whole": "b0335dcc-0eeb-503a-8a48-3e8a63bcad40",
        "point": "ecc1ec36-088f-5398-95cf-0aba87cfea75",
        "point, whole": "b15f94e4-4367-5205-8f95-240130661742",
        "log": "8d40adf3-59df-555c-9ad6-820939cc9652",
        "log, again": "4adc91cd-5fe4-5262-ac40-422ec737ac3c",
    }


def test_an_id_is_the_same_in_every_process() -> None:
    program = "from tests.test_ids import pinned; print(*pinned().values())"
    # In that process, strings have other hashes and sets another order.
    environment = {"PYTHONHASHSEED": "12345", "PATH": "", "TZ": "Asia/Tokyo"}
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    ).stdout
    assert output.split() == [str(value) for value in pinned().values()]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "must not be empty"),
        ("0" * 32, "must not be all zeros"),
        (UUID(int=0), "must not be all zeros"),
        (None, "must be text or a UUID"),
        (5, "must be text or a UUID"),
        (b"ab", "must be text or a UUID"),
        ("é" * 513, "must have at most 1024 bytes"),
    ],
)
def test_invalid_trace_ids_are_refused(value: Any, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule) as caught:
        ids.trace_uuid(value, "id")
    assert caught.value.field == "id"


@pytest.mark.parametrize(
    "value", ["", "0" * 16, "a" * 15, "a" * 17, "0x" + "a" * 14, "g" * 16, 7, None]
)
def test_invalid_span_ids_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="must be 16 hex digits, not all zeros") as caught:
        ids.span_id(value, "parent_span_id")
    assert caught.value.field == "parent_span_id"


def test_new_ids_are_valid_and_unique() -> None:
    made = {ids.new_trace_id() for _ in range(100)}
    assert len(made) == 100
    assert all(ids.trace_uuid(value).hex == value for value in made)
    assert all(ids.span_id(value) == value for value in (ids.new_span_id() for _ in range(100)))


def test_random_uuids_are_those_of_the_standard_library() -> None:
    made = ids.random_uuids(100)
    assert len(set(made)) == 100
    for value in made:
        assert (value.version, value.variant) == (4, RFC_4122)
        assert value == UUID(str(value)) == pickle.loads(pickle.dumps(value))
        assert value.is_safe is UUID(int=1).is_safe


def test_metric_id_depends_on_each_part_of_the_definition() -> None:
    definition: dict[str, Any] = {
        "name": "latency",
        "metric_type": "gauge",
        "unit": "ms",
        "temporality": "delta",
        "resource_attributes": {"a": 1, "b": {"c": 2, "d": 3}},
        "scope_name": "app",
        "scope_version": "1",
        "scope_attributes": {"a": 1},
        "service_name": "chat",
        "origin": {"resource": "x"},
    }
    first = ids.metric_id(**definition)
    reordered = {"b": {"d": 3, "c": 2}, "a": 1}
    assert ids.metric_id(**{**definition, "resource_attributes": reordered}) == first
    others: list[tuple[str, Any]] = [
        ("name", "latenc"),
        ("metric_type", "counter"),
        ("unit", "s"),
        ("unit", None),
        ("temporality", None),
        ("resource_attributes", {"a": 1.0, "b": {"c": 2, "d": 3}}),
        ("resource_attributes", {"a": True, "b": {"c": 2, "d": 3}}),
        ("resource_attributes", {"a": "1", "b": {"c": 2, "d": 3}}),
        ("resource_attributes", None),
        ("scope_name", None),
        ("scope_version", "2"),
        ("scope_attributes", {}),
        ("service_name", "other"),
        ("origin", None),
    ]
    found = [ids.metric_id(**{**definition, key: value}) for key, value in others]
    assert len({first, *found}) == 1 + len(others)


def test_service_name_counts_only_if_the_resource_does_not_name_it() -> None:
    named = {"service.name": "chat"}
    one = ids.metric_id(name="m", metric_type="gauge", resource_attributes=named)
    assert one == ids.metric_id(name="m", metric_type="gauge", service_name="chat")
    assert one == ids.metric_id(
        name="m", metric_type="gauge", service_name="other", resource_attributes=named
    )


def test_boundaries_between_parts_matter() -> None:
    one = ids.metric_id(name="a", metric_type="gauge", scope_name="b", scope_version="c")
    assert one != ids.metric_id(name="a", metric_type="gauge", scope_name="bc")
    assert ids.data_point_id(attributes={"a": "1,b"}) != ids.data_point_id(
        attributes={"a": "1", "b": None}
    )


def test_data_point_id_depends_on_attributes_and_start() -> None:
    found = {
        ids.data_point_id(),
        ids.data_point_id(attributes={"a": 1}),
        ids.data_point_id(attributes={"a": 1.0}),
        ids.data_point_id(start_timestamp=NOON),
        ids.data_point_id(start_timestamp=NOON + timedelta(microseconds=1)),
        ids.data_point_id(start_timestamp=datetime.max.replace(tzinfo=UTC)),
        ids.data_point_id(start_timestamp=datetime.max.replace(microsecond=999998, tzinfo=UTC)),
        ids.data_point_id(origin={"time_ns": 1}),
    }
    assert len(found) == 8
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))
    assert ids.data_point_id(start_timestamp=elsewhere) == ids.data_point_id(start_timestamp=NOON)
    assert ids.data_point_id(attributes={}) == ids.data_point_id()


def test_value_and_its_repaired_form_have_the_same_id() -> None:
    repaired = {"a": "NaN", "b": "\ufffd", "c": 1e16}
    broken = {"c": 1e16, "b": "\x00", "a": NAN}
    assert ids.data_point_id(attributes=broken) == ids.data_point_id(attributes=repaired)


def test_equal_logs_differ_by_their_ordinal() -> None:
    content = {"body": "x", "timestamp": NOON, "trace_id": None}
    assert len({ids.log_id(content, ordinal) for ordinal in range(100)}) == 100
    assert ids.log_id(dict(reversed(content.items())), 0) == ids.log_id(content, 0)


@pytest.mark.parametrize("shared", [{}, {"a": 1.5e-7, "b": "\x00"}, {"n": 2**70, "s": "\ud800"}])
@pytest.mark.parametrize("own", [{"x": 1}, {"y": 1e-9}, {"t": datetime(2026, 1, 2, tzinfo=UTC)}])
def test_log_id_with_shared_parts_is_the_same(shared: Any, own: dict[str, Any]) -> None:
    whole = {**own, "resource_attributes": shared}
    apart = {**own, "resource_attributes": jsonb.shared(shared)}
    assert ids.log_id(apart, 1) == ids.log_id(whole, 1)
    assert ids.log_id(whole, 1) == uuid5(ids.NAMESPACE, jsonb.canonical(("log", whole, 1)))
