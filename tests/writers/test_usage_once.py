"""Any trees of spans with usage anywhere, cut and ordered in any way: each token counts once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.models import TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.soak.scale import examples, scaled
from tests.writers.helpers import Row, a_span, empty, fetch, span_id
from tests.writers.trace_model import check_traces
from tests.writers.usage_model import around_calls, calls_of, cost_of, has_usage

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
USAGE = (*TOKENS, "prompt_cost_usd", "completion_cost_usd", "total_cost_usd")
MOST_SPANS = scaled(14, 24)


def price(tokens: int) -> Decimal:
    return Decimal(tokens) / 1000


@st.composite
def spans_of_traces(draw: st.DrawFn) -> list[Row]:
    """Spans of some traces. Whoever reports one call reports equal tokens and costs of it."""
    spans: list[Row] = []
    for number in range(1, draw(st.integers(6, MOST_SPANS)) + 1):
        trace = draw(st.integers(1, 2))
        above = [span["span_id"] for span in spans if span["trace_id"] == f"{trace:032x}"]
        parent = draw(st.sampled_from([None, span_id(999), *above * 3]))
        call = draw(st.sampled_from([None, None, 1, 2, 3]))
        columns: Row = {}
        if call is None:
            reported = draw(st.sampled_from([None, 0, 1, 2, 3, 40, 40]))
        else:
            reported = call if draw(st.booleans()) else None
            columns["response_id"] = f"r{call}"
        if reported is not None:
            columns["prompt_tokens"] = 10 * reported
            columns["completion_tokens"] = reported
            columns["total_tokens"] = 11 * reported
            cost = draw(st.sampled_from([None, Decimal(0), price(reported)]))
            columns["total_cost_usd"] = cost
        if draw(st.booleans()):
            columns["model"] = "gpt-4o"
        columns["operation"] = draw(st.sampled_from([None, "chat", "invoke_agent"]))
        spans.append(a_span(trace, number, parent_span_id=parent, **columns))
    return spans


def cut(rows: Sequence[Row], chance: Random) -> list[list[Row]]:
    """The rows in any order and in batches of any size; some are sent again later."""
    rows = chance.sample(rows, len(rows))
    rows += chance.choices(rows, k=len(rows) // 3)
    batches = []
    while rows:
        size = chance.choice([1, 2, 5, len(rows)])
        batches.append(list({row["span_id"]: row for row in rows[:size]}.values()))
        rows = rows[size:]
    return batches


def write_by_two(pool: StoragePool, batches: Sequence[list[Row]]) -> None:
    def write(mine: Sequence[list[Row]], method: Any) -> None:
        writer = CopyWriter(pool, method=method)
        for number, batch in enumerate(mine):
            writer.write_spans(batch)
            if number % 2:
                pool.settle_usage(max_traces=1)

    with ThreadPoolExecutor(2) as threads:
        halves = [
            threads.submit(write, batches[::2], "copy"),
            threads.submit(write, batches[1::2], "auto"),
        ]
        for half in halves:
            half.result()


def stored(pool: StoragePool) -> dict[str, Row]:
    columns = (
        *("trace_id", *USAGE, "token_details", "cost_source"),
        *("reported_usage", "reported_cost_source"),
    )
    return {
        row["span_id"]: {column: row[column] for column in columns}
        for row in fetch(pool, TraceSpan)
    }


def test_each_token_counts_once(pool: StoragePool) -> None:
    @examples(15, 3000)
    @given(spans_of_traces(), st.integers(0, 2**32))
    def check(rows: list[Row], seed: int) -> None:
        empty(pool)
        chance = Random(seed)
        write_by_two(pool, cut(rows, chance))
        settled = pool.settle_usage()
        found = stored(pool)
        check_traces(pool)
        check_plainly(rows, found)
        # Nothing is left to do, and the same spans again change nothing.
        assert pool.settle_usage().traces == 0
        write_by_two(pool, cut(rows, chance))
        pool.settle_usage()
        assert stored(pool) == found
        # Written together, they come to the same.
        empty(pool)
        CopyWriter(pool).write_spans(rows)
        assert settled.traces <= 2
        assert stored(pool) == found
        assert pool.settle_usage().changed_traces == 0

    check()


def check_plainly(rows: list[Row], found: dict[str, Row]) -> None:
    calls = calls_of(rows)
    around = around_calls(rows, calls)
    for column in TOKENS:
        wanted = sum(call[0][column] for call in calls)
        assert sum(row[column] or 0 for row in found.values()) == wanted
    cost = sum(map(cost_of, calls), Decimal(0))
    cost += sum((row["total_cost_usd"] for row in around), Decimal(0))
    assert sum((row["total_cost_usd"] or 0 for row in found.values()), Decimal(0)) == cost
    for call in calls:
        counting = [row for row in call if found[row["span_id"]]["total_tokens"]]
        assert len(counting) == 1
        priced = [row for row in call if found[row["span_id"]]["total_cost_usd"]]
        assert priced == (counting if cost_of(call) else [])
    for row in rows:
        columns = found[row["span_id"]]
        reported = columns["reported_usage"]
        told = {column: row.get(column) for column in USAGE}
        if reported is None:
            assert {column: columns[column] for column in USAGE} == told
        else:
            assert has_usage(row)
            assert {column: columns[column] for column in USAGE} != told
            exact = {c: v if c in TOKENS or v is None else str(v) for c, v in told.items()}
            assert reported == {
                column: value for column, value in exact.items() if value is not None
            }
