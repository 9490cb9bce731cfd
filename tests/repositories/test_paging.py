"""Cursors hold a place exactly, and nothing else passes for one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.errors import ValidationError
from observatory_storage.repositories import Page
from observatory_storage.repositories.paging import (
    decode_cursor,
    encode_cursor,
    from_plain,
    to_plain,
)

QUERY: dict[str, Any] = {"service_name": "a", "start_time": datetime(2026, 1, 1, tzinfo=UTC)}
CURSOR = encode_cursor("spans", QUERY, [1, "x", None])


def test_a_page_is_a_sequence() -> None:
    page = Page((1, 2, 3), next="n")
    assert list(page) == [1, 2, 3]
    assert len(page) == 3
    assert page[0] == 1
    assert page[-2:] == (2, 3)
    assert 2 in page
    assert not Page(())


def test_a_cursor_gives_back_what_it_holds() -> None:
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
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationError):
        decode_cursor("before", cursor, "spans", QUERY)


@pytest.mark.parametrize("cursor", [1, b"x", UUID(int=1)])
def test_what_is_not_even_text_is_refused(cursor: Any) -> None:
    with pytest.raises(ValidationError, match="must be the cursor"):
        decode_cursor("before", cursor, "spans", QUERY)


@pytest.mark.parametrize(
    ("list_name", "query"),
    [("traces", QUERY), ("spans", {}), ("spans", {**QUERY, "service_name": "b"})],
)
def test_the_cursor_of_another_query_is_refused(list_name: str, query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="another query"):
        decode_cursor("after", CURSOR, list_name, query)
