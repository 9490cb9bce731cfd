"""Any trees of spans, cut and ordered in any way: each cost counts once, told ones first."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import StoragePool, recompute_costs
from observatory_storage.writers import CopyWriter
from tests.pricing.spans_of_calls import costs, price_model
from tests.soak.scale import examples
from tests.writers.helpers import Row, empty
from tests.writers.test_usage_once import cut, spans_of_traces, stored, write_by_two
from tests.writers.trace_model import check_traces
from tests.writers.usage_model import around_calls, calls_of, cost_of, descendants

Call = Sequence[Row]


def computed(call: Call, around: Call, spans: Call) -> Decimal:
    """The computed cost of a call that tells none; zero if it has none."""
    covered = {id(below) for agent in around for below in descendants(agent, spans)}
    if any(id(span) in covered for span in call):
        return Decimal(0)
    if not any(span.get("model") for span in call):
        return Decimal(0)
    prompt, completion = call[0]["prompt_tokens"], call[0]["completion_tokens"]
    return Decimal(prompt + 10 * completion) / 1_000_000


def check_costs(spans: Call, found: dict[str, Row]) -> None:
    calls = calls_of(spans)
    around = around_calls(spans, calls)
    told = sum((cost_of(call) for call in calls), Decimal(0))
    told += sum((span["total_cost_usd"] for span in around), Decimal(0))
    expected = sum(
        (computed(call, around, spans) for call in calls if not cost_of(call)), Decimal(0)
    )
    by_source = {"told": Decimal(0), "computed": Decimal(0), None: Decimal(0)}
    for row in found.values():
        by_source[row["cost_source"]] += row["total_cost_usd"] or 0
    assert by_source == {"told": told, "computed": expected, None: 0}


def test_each_cost_counts_once(pool: StoragePool) -> None:
    @examples(15, 2000)
    @given(spans_of_traces(), st.integers(0, 2**32))
    def check(rows: list[Row], seed: int) -> None:
        empty(pool)
        price_model(pool, 1, model="gpt-4o")
        chance = Random(seed)
        write_by_two(pool, cut(rows, chance))
        pool.settle_usage()
        found = stored(pool)
        check_traces(pool)
        check_costs(rows, found)
        # Nothing is left to do, and the same spans again change nothing.
        assert recompute_costs(pool).changed_spans == 0
        write_by_two(pool, cut(rows, chance))
        pool.settle_usage()
        assert stored(pool) == found
        # Computed afterwards, they come to the same.
        empty(pool)
        pool.prices.forget()
        CopyWriter(pool).write_spans(rows)
        assert "computed" not in {source for _, source in costs(pool)}
        price_model(pool, 1, model="gpt-4o")
        recompute_costs(pool)
        pool.settle_usage()
        assert stored(pool) == found

    check()
