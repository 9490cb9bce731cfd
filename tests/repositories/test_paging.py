"""Cursors hold a place exactly, and nothing else passes for one."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observatory_storage import StoragePool
from observatory_storage.errors import ValidationError
from observatory_storage.repositories import Page
from observatory_storage.repositories.reading import cursors
from observatory_storage.repositories.reading.cursors import (
    decode_cursor,
    encode_cursor,
    from_plain,
    to_plain,
)
from tests.repositories.lists import LISTS, Listing

QUERY: dict[str, Any] = {"service_name": "a", "start_time": datetime(2026, 1, 1, tzinfo=UTC)}
CURSOR = encode_cursor("spans", QUERY, [1, "x", None])
# Of each list's query, as its own cursors have it.
FINGERPRINTS: dict[str, str] = {}


def test_a_page_is_a_sequence() -> None:
    page = Page((1, 2, 3), next="n")
    assert list(page) == [1, 2, 3]
    assert len(page) == 3
    assert page[0] == 1
    assert page[-2:] == (2, 3)
    assert 2 in page
    assert not Page(())


def test_a_cursor_decodes_to_its_values() -> None:
    assert decode_cursor("after", CURSOR, "spans", QUERY) == [1, "x", None]


@given(
    st.one_of(
        st.datetimes(timezones=st.just(UTC)),
        st.uuids(),
        st.text(),
        st.integers(),
    )
)
def test_keys_are_held_exactly(value: Any) -> None:
    cursor = encode_cursor("l", {}, [to_plain(value)])
    assert from_plain(decode_cursor("after", cursor, "l", {})[0], type(value)) == value


@pytest.mark.parametrize("at", range(len(CURSOR)))
def test_a_changed_cursor_is_refused(at: int) -> None:
    for other in "Aa0-_":
        changed = CURSOR[:at] + other + CURSOR[at + 1 :]
        if changed != CURSOR:
            with pytest.raises(ValidationError, match="not a cursor") as refused:
                decode_cursor("after", changed, "spans", QUERY)
            assert refused.value.field == "after"


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", CURSOR[:-1], CURSOR + "A", CURSOR + "=", "A" * 99_999]
)
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationError):
        decode_cursor("before", cursor, "spans", QUERY)


@pytest.mark.parametrize("cursor", [1, b"x", UUID(int=1)])
def test_a_cursor_that_is_not_text_is_refused(cursor: Any) -> None:
    with pytest.raises(ValidationError, match="must be the cursor"):
        decode_cursor("before", cursor, "spans", QUERY)


@pytest.mark.parametrize(
    ("list_name", "query"),
    [("traces", QUERY), ("spans", {}), ("spans", {**QUERY, "service_name": "b"})],
)
def test_the_cursor_of_another_query_is_refused(list_name: str, query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="another query"):
        decode_cursor("after", CURSOR, list_name, query)


# Anybody can compute the checksum: what a forged cursor holds must be a place, or be refused.
FORGED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)


@settings(max_examples=150)
@given(values=st.lists(FORGED, max_size=5), listing=st.sampled_from(LISTS))
def test_a_forged_cursor_is_a_place_or_is_refused(
    shared_pool: StoragePool, values: list[Any], listing: Listing
) -> None:
    _ask_with(shared_pool, listing, values)


@pytest.mark.parametrize("listing", LISTS, ids=str)
@pytest.mark.parametrize(
    "value",
    [0, -1, 2**15, 2**63, 10**30, 1e400, 1.5, "\0", "\ud800", "x" * 9000, "{" + "0" * 32 + "}"],
    ids=ascii,
)
def test_each_part_of_a_forged_cursor_is_checked(
    shared_pool: StoragePool, listing: Listing, value: Any
) -> None:
    genuine = _values_of(shared_pool, listing)
    for at in range(len(genuine)):
        _ask_with(shared_pool, listing, [*genuine[:at], value, *genuine[at + 1 :]])
    _ask_with(shared_pool, listing, [*genuine, value])


@pytest.mark.parametrize("content", ["[" * 9000, "5", "{}", "[]", '"a"', "null", "[[]]", "nan"])
def test_a_cursor_without_a_list_of_values_is_refused(content: str) -> None:
    with pytest.raises(ValidationError):
        decode_cursor("after", cursors._base64(_sealed(content.encode())), "spans", {})


@settings(max_examples=100)
@given(values=st.lists(st.one_of(FORGED, st.just(1_760_000_000_000_000)), min_size=4, max_size=6))
def test_a_forged_cursor_of_a_tail_is_a_place_or_is_refused(
    shared_pool: StoragePool, values: list[Any]
) -> None:
    cursor = encode_cursor("tail", {}, values)
    with shared_pool.unit_of_work() as uow, contextlib.suppress(ValidationError):
        assert uow.logs.tail(cursor).next is not None


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("value", [None, 0, -1, 2**64, 1.5, "x", [], [0, 0, "0"], [0, 2**40, ""]])
def test_each_part_of_a_tails_cursor_is_checked(
    shared_pool: StoragePool, at: int, value: Any
) -> None:
    with shared_pool.unit_of_work() as uow:
        cursor = uow.logs.tail().next
        assert cursor is not None
        values = decode_cursor("cursor", cursor, "tail", {})
        values[at : at + 1] = [value]  # on shards, a cursor has fewer parts
        with contextlib.suppress(ValidationError):
            assert uow.logs.tail(encode_cursor("tail", {}, values)).next is not None


def _sealed(content: bytes) -> bytes:
    return cursors._checksum(content) + content


def _values_of(pool: StoragePool, listing: Listing) -> list[Any]:
    listing.write(pool, [1, 2, 3])
    with pool.unit_of_work() as uow:
        cursor = listing.page(uow, limit=1).next
    assert cursor is not None
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    fingerprint, *values = json.loads(raw[cursors._CHECKSUM_BYTES :])
    FINGERPRINTS[listing.name] = fingerprint
    return list(values)


def _ask_with(pool: StoragePool, listing: Listing, values: list[Any]) -> None:
    """Ask for the page at a cursor that only looks right; nothing but a refusal may be raised."""
    if listing.name not in FINGERPRINTS:
        _values_of(pool, listing)
    content = json.dumps([FINGERPRINTS[listing.name], *values]).encode()
    cursor = cursors._base64(_sealed(content))
    for way in ("after", "before"):
        with pool.unit_of_work() as uow, contextlib.suppress(ValidationError):
            assert len(listing.page(uow, limit=2, **{way: cursor})) <= 2
