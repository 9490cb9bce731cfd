"""The LLM columns of a span, read from its attributes. Called once for every span: a hot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Context
from typing import Any, Final, NamedTuple

from observatory_storage.llm.dialects import (
    ALIASES,
    ENVIRONMENT_KEYS,
    IN_SECONDS,
    USAGE_COLUMNS,
)
from observatory_storage.llm.readers import MAX_INT64, read_seconds, read_text, reader_of

__all__ = [
    "READERS",
    "add_totals",
    "facts",
]

# Precise enough to add any two amounts exactly, and without the traps of the caller's context.
_EXACT: Final = Context(prec=400, traps=[])


def facts(
    attributes: Mapping[str, Any],
    *,
    resource_attributes: Mapping[str, Any],
) -> dict[str, Any]:
    """Read the LLM columns of a span from its attributes. Unknown columns are absent.

    It reads all dialects (see `dialects`). Tokens are int, costs `Decimal` in US dollars,
    ``ttft_ms`` float in milliseconds, all others str. A total that is not reported is the sum of
    the reported prompt and completion values. A value of the wrong type or size counts as absent;
    nothing is raised.
    """
    found: dict[str, Any] = {}
    known = _KNOWN & attributes.keys()
    if known and _read(attributes, known, found):
        add_totals(found)
    if "environment" not in found:
        for key in ENVIRONMENT_KEYS:
            if key in resource_attributes:
                environment = read_text(resource_attributes[key])
                if environment is not None:
                    found["environment"] = environment
                    break
    return found


def add_totals(columns: dict[str, Any]) -> None:
    """Add absent totals: the sums of the known prompt and completion values, zeros included."""
    if "total_tokens" not in columns:
        tokens = [
            columns[side] for side in ("prompt_tokens", "completion_tokens") if side in columns
        ]
        if tokens and sum(tokens) <= MAX_INT64:
            columns["total_tokens"] = sum(tokens)
    if "total_cost_usd" not in columns:
        prompt, completion = columns.get("prompt_cost_usd"), columns.get("completion_cost_usd")
        if prompt is not None and completion is not None:
            columns["total_cost_usd"] = _EXACT.add(prompt, completion)
        elif prompt is not None or completion is not None:
            columns["total_cost_usd"] = completion if prompt is None else prompt


class Reader(NamedTuple):
    """How an attribute is read.

    Attributes:
        column: the column that it fills.
        rank: its precedence among the attributes of the column: the least rank wins.
        read: converts the attribute's value to the column's; None if it is not valid.
        is_usage: whether the column is tokens or a cost.
    """

    column: str
    rank: int
    read: Callable[[object], Any]
    is_usage: bool


READERS: Final[dict[str, Reader]] = {
    key: Reader(
        column,
        rank,
        read_seconds if key in IN_SECONDS else reader_of(column),
        column in USAGE_COLUMNS,
    )
    for column, keys in ALIASES.items()
    for rank, key in enumerate(keys)
}
_KNOWN: Final = READERS.keys()


def _read(attributes: Mapping[str, Any], known: Iterable[str], found: dict[str, Any]) -> bool:
    """Find for each column the first valid value by rank.

    Returns whether tokens or costs were found.
    """
    ranks: dict[str, int] = {}
    has_usage = False
    for key in known:
        column, rank, read, is_usage = READERS[key]
        if column in ranks and ranks[column] < rank:
            continue
        value = read(attributes[key])
        if value is not None:
            found[column] = value
            ranks[column] = rank
            has_usage = has_usage or is_usage
    return has_usage
