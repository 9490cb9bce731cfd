"""Stores prepared rows in PostgreSQL: transactions, COPY and INSERT, merges and retries.

Buffered writers, `CopyWriter` and OTLP requests all call `store` or `write_batch`.
"""

from observatory_storage.storing.cost_recompute import RecomputedCosts, recompute_costs
from observatory_storage.storing.facts_refresh import RefreshedFacts, refresh_facts
from observatory_storage.storing.span_costs import with_costs
from observatory_storage.storing.store import (
    StoreResult,
    as_written,
    store,
    store_into,
    write_batch,
)
from observatory_storage.storing.transaction import Source, payload_mode, source_of
from observatory_storage.storing.upsert import Loader, Method, chosen_method
from observatory_storage.storing.usage_in_batch import counted_rows
from observatory_storage.storing.usage_settlement import SettledUsage, settle_usage

__all__ = [
    "Loader",
    "Method",
    "RecomputedCosts",
    "RefreshedFacts",
    "SettledUsage",
    "Source",
    "StoreResult",
    "as_written",
    "chosen_method",
    "counted_rows",
    "payload_mode",
    "recompute_costs",
    "refresh_facts",
    "settle_usage",
    "source_of",
    "store",
    "store_into",
    "with_costs",
    "write_batch",
]
