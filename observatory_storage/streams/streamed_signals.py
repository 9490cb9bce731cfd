"""The signals that are streamed: their tables, the columns that are published, and their keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Engine

from observatory_storage.config import StreamSignal
from observatory_storage.tables import DATA_POINTS, LOGS, SPANS, TRACES, TableDefinition

__all__ = ["STREAMED", "Signal", "key_prefix"]


def key_prefix(engine: Engine, schema: str) -> str:
    """What the names of this store's keys in Redis begin with.

    Several databases and schemas can share one Redis. Of the braces, a Redis Cluster takes the hash
    slot, so that all keys of a store are on one node.
    """
    return f"observatory:{{{engine.url.database or ''}:{schema}}}"


@dataclass(frozen=True)
class Signal:
    """A signal that is streamed.

    Args:
        name: its name.
        table: the table whose rows are published.
        text_payload: columns of text that are payloads.
    """

    name: StreamSignal
    table: TableDefinition
    text_payload: tuple[str, ...] = ()

    @cached_property
    def payload(self) -> frozenset[str]:
        """The columns that are published only if payloads are."""
        written = self.table.json_columns.intersection(self.table.columns)
        return written.union(self.text_payload)

    def columns(self, *, payloads: bool) -> tuple[str, ...]:
        """The columns that are published, in the order of the table."""
        if self.table is TRACES:
            return ("id",)
        return tuple(c for c in self.table.columns if payloads or c not in self.payload)

    def key(self, prefix: str) -> str:
        """The name of its stream."""
        return f"{prefix}:stream:{self.name}"


STREAMED: Final[dict[Any, Signal]] = {
    signal.name: signal
    for signal in (
        Signal("spans", SPANS),
        Signal("traces", TRACES),
        Signal("logs", LOGS, ("body",)),
        Signal("data_points", DATA_POINTS),
    )
}
"""By name. Of traces, the ids are published: readers get the rows from PostgreSQL."""
