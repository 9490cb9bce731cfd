"""Searches find the same log records wherever their values stand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import (
    LogFilters,
    Not,
    OneOf,
    Prefix,
    SpanFilters,
    StoragePool,
    TraceFilters,
    UnitOfWork,
    ValidationError,
    export_logs,
)
from observatory_storage.lifecycle.payload_conversion import convert_payloads
from observatory_storage.lifecycle.payload_index import index_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.payloads import preview_of
from tests.payloads.framed import START, a_text, a_turn, write
from tests.payloads.logged import a_record, check_logs, framed_logs, write_logs
from tests.repositories.samples import statements
from tests.repositories.test_tail import others_have_ended
from tests.writers.helpers import trace_id

HOUR = timedelta(hours=1)
_LONG = a_text(900)


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": [{"type": "text", "content": text}]}]


def written() -> list[dict[str, Any]]:
    """Records whose words stand at the end of large values, in text bodies, or in no event."""
    plain = {"event_name": None, "attributes": {"big": "keyword-of-no-event " + _LONG}}
    return [
        a_record(1, 1, body_json={"role": "user", "content": f"{_LONG} zebra crossing"}),
        a_record(1, 2, attributes={"gen_ai.input.messages": said(f"{_LONG} the okapi's café")}),
        a_record(1, 3, body="a zebra in text", body_json=None),
        a_record(2, 4, START + HOUR, body_json={"content": f"{_LONG} C:\\new\\zebra 1e5 x_y"}),
        a_record(2, 5, START + 2 * HOUR, body="okapi", attributes={"other": f"{_LONG} quagga"}),
        a_record(
            2, 6, START + 2 * HOUR, body=None, body_json=[{"a": f"{_LONG} lastword"}], **plain
        ),
        a_record(None, 7, body_json={"content": f"{_LONG} zebra without a trace"}),
        a_record(3, 8, START + 26 * HOUR, event_name="cart.filled", body_json=None),
        a_record(3, 9, body_json={"content": _LONG}, attributes={"tag": _LONG, "short": "yes"}),
    ]


TEXTS = [
    *('"zebra crossing"', "zebra -crossing", "-zebra", "CAFÉ", "lastword", "keyword", "quag*"),
    *("zebra or quagga", "x_y", "C:\\new\\zebra", "absent"),
]
SOME_TEXTS = ["zebra", "okapi"]
PARTS = ["ebra cross", "okapi's caf", "lastwo", "no-event", "nothing at all", "ew\\ze"]
ATTRIBUTES: list[dict[str, Any]] = [
    {"tag": _LONG},
    {"tag": Prefix(_LONG[:100])},
    {"tag": preview_of(f'"{_LONG}"'.encode())},
    {"tag": Not(_LONG)},
    {"tag": OneOf("no", _LONG), "short": "yes"},
    {"turn": 8},
    {"other": f"{_LONG} quagga"},
]


def ids(rows: Iterable[Any]) -> list[int]:
    return [row.id.int for row in rows]


def answers(pool: StoragePool) -> dict[str, Any]:
    """What searches find: the ids, in their order."""
    found: dict[str, Any] = {}
    others_have_ended(pool)
    with pool.unit_of_work() as uow:
        logs = uow.logs
        for text in TEXTS:
            found[f"list {text}"] = ids(logs.list(text=text))
        for text in SOME_TEXTS:
            filters = LogFilters(text=text)
            page = logs.list(text=text, limit=2, total="exact")
            found[f"total {text}"] = page.total
            found[f"pages {text}"] = [ids(page)]
            while page.next is not None:
                page = logs.list(text=text, limit=2, after=page.next)
                found[f"pages {text}"].append(ids(page))
            within: Any = {"start_time": START + HOUR, "end_time": START + 4 * HOUR}
            found[f"within {text}"] = ids(logs.list(text=text, **within))
            ranked = logs.search_text(text, order="rank", total="exact")
            found[f"ranked {text}"] = ids(ranked), ranked.total
            found[f"tail {text}"] = ids(logs.tail(None, text=text, limit=2))
            found[f"levels {text}"] = logs.count_by_level(filters)
            found[f"stats {text}"] = logs.get_stats(filters)
            severe = logs.list(text=text, min_severity="WARN", trace_id=trace_id(1))
            found[f"severe {text}"] = ids(severe)
            spans = uow.traces.list_spans(SpanFilters(text=text))
            found[f"spans {text}"] = [(span.trace_id.int, span.span_id) for span in spans]
            found[f"traces {text}"] = ids(uow.traces.list(text=text))
            found[f"counted {text}"] = uow.traces.get_stats(TraceFilters(text=text)).trace_count
        found |= answers_by_part(uow)
        for number, wanted in enumerate(ATTRIBUTES):
            found[f"attributes {number}"] = ids(logs.list(attributes=wanted))
    exported = export_logs(pool, LogFilters(text="zebra"))
    found["exported"] = [
        record["timeUnixNano"]
        for request in exported
        for resource in request["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    return found


def answers_by_part(uow: UnitOfWork) -> dict[str, Any]:
    """What searches for substrings find."""
    found = {}
    for part in PARTS:
        given: Any = {"contains": part, "start_time": START}
        found[f"contains {part}"] = ids(uow.logs.iterate(batch_size=2, **given))
    assert found["contains ebra cross"]
    both: Any = {"contains": "ebra cross", "start_time": START, "text": "zebra"}
    found["both"] = ids(uow.logs.list(attributes={"turn": OneOf(1, 4)}, **both))
    found["spans by part"] = ids(uow.traces.list(contains="ebra cross", start_time=START))
    return found


def test_searches_find_the_same_wherever_values_stand(pool: StoragePool) -> None:
    spans = [
        {**a_turn(trace, n, start), "attributes": {}, "events": []}
        for trace, n, start in ((1, 1, START), (1, 2, START), (2, 4, START + HOUR), (3, 8, START))
    ]
    write(pool, spans, payloads="inline")
    write_logs(pool, written(), payloads="inline")
    inline = answers(pool)
    for search in ('list "zebra crossing"', "spans okapi", "traces zebra"):
        assert inline[search]
    assert inline["attributes 0"] == [3009]
    convert_payloads(pool, "compressed")
    assert framed_logs(pool) == 8
    assert answers(pool) == inline
    assert index_payloads(Run(pool)).rows == 8
    check_logs(pool)
    assert answers(pool) == inline


def test_a_rare_word_opens_few_frames_once_words_are_indexed(pool: StoragePool) -> None:
    flushes = [
        [a_record(n, 1, START + n * timedelta(minutes=1), body=None, body_json=None) for n in part]
        for part in (range(1, 60), range(60, 120))
    ]
    flushes[0][17]["body_json"] = {"content": f"{_LONG} needle"}
    write_logs(pool, *flushes)
    index_payloads(Run(pool))
    with pool.unit_of_work() as uow, statements(pool.engine) as sent:
        assert ids(uow.logs.list(text="needle", limit=5)) == [18_001]
        assert uow.logs.list(text="needle absent", limit=5).rows == ()
    # None of them is repeated to skip records that do not match.
    assert len(sent) < 20


def test_a_page_goes_on_until_it_is_full(pool: StoragePool) -> None:
    """Most records that may match do not, and the last one does."""
    rows = [
        a_record(n, 1, START - n * timedelta(seconds=1), body=None, body_json={"content": _LONG})
        for n in range(1, 70)
    ]
    rows[-1]["body_json"] = {"content": f"{_LONG} needle"}
    rows[-2]["body_json"] = {"content": f"{_LONG} needle"}
    write_logs(pool, rows)
    given: Any = {"contains": "eedl", "start_time": START - HOUR, "limit": 1}
    with pool.unit_of_work() as uow:
        page = uow.logs.list(**given)
        assert ids(page) == [68_001]
        page = uow.logs.list(after=page.next, **given)
        assert (ids(page), page.next) == ([69_001], None)
        assert ids(uow.logs.list(before=page.previous, **given)) == [68_001]
    others_have_ended(pool)
    with pool.unit_of_work() as uow:
        tail = uow.logs.tail(None, **given)
        assert ids(tail) == [68_001]
        assert uow.logs.tail(tail.next, **given).rows == ()


def test_a_tail_finds_words_of_frames_as_they_arrive(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        cursor = uow.logs.tail(None, text="needle", limit=2).next
    rows = [
        a_record(1, n, body_json={"content": _LONG + (" needle" if n % 3 == 0 else "")})
        for n in range(1, 12)
    ]
    write_logs(pool, rows[:6], rows[6:])
    others_have_ended(pool)
    found: list[int] = []
    for _ in range(4):
        with pool.unit_of_work() as uow:
            page = uow.logs.tail(cursor, text="needle", limit=2)
        assert len(page) <= 2
        found += [row.id.int - 1000 for row in page]
        cursor = page.next
    assert found == [3, 6, 9]


def test_a_long_prefix_is_refused_by_name(pool: StoragePool) -> None:
    with pytest.raises(ValidationError, match="prefix of at most 100 characters"):
        LogFilters(attributes={"tag": Prefix("x" * 101)})
