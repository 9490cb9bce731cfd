"""`facts` of many spans at once, column by column: the same values in less time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import Any, Final

from observatory_storage.llm.dialects import ENVIRONMENT_KEYS, USAGE_COLUMNS
from observatory_storage.llm.extract import READERS, add_totals
from observatory_storage.llm.readers import MAX_INT64, read_text, read_tokens

__all__ = ["facts_by_column"]

_KNOWN: Final = READERS.keys()
_SIDES: Final = ("prompt_tokens", "completion_tokens")


def facts_by_column(
    attributes: Sequence[Mapping[str, Any]],
    *,
    resource_attributes: Sequence[Mapping[str, Any]],
) -> dict[str, list[Any]]:
    """Read the LLM columns of spans from their attributes; None for unknown values.

    `facts` describes the columns. A column that is unknown for all spans is absent.
    """
    keys = set[Any]().union(*attributes)
    found: dict[str, list[Any]] = {}
    # An attribute of a lesser rank goes first.
    for key in sorted(_KNOWN & keys, key=lambda known: READERS[known].rank):
        reader = READERS[key]
        values = _all_read([given.get(key) for given in attributes], reader.read)
        found[reader.column] = _filled(found.get(reader.column), values)
    if not found.keys().isdisjoint(USAGE_COLUMNS):
        _add_totals(found)
    _fill_environment(found, resource_attributes)
    return found


def _all_read(values: list[Any], read: Callable[[object], Any]) -> list[Any]:
    kinds = set(map(type, values))
    if kinds == {str}:
        known = {value: read(value) for value in set(values)}
        return [known[value] for value in values]
    if kinds == {int} and read is read_tokens and min(values) >= 0 and max(values) <= MAX_INT64:
        return values
    return [None if value is None else read(value) for value in values]


def _filled(first: list[Any] | None, then: list[Any]) -> list[Any]:
    if first is None:
        return then
    return [b if a is None else a for a, b in zip(first, then, strict=True)]


def _add_totals(found: dict[str, list[Any]]) -> None:
    """The same as `add_totals` of each span."""
    if found.keys() & USAGE_COLUMNS == set(_SIDES):
        try:
            totals = list(map(add, *(found[side] for side in _SIDES)))
        except TypeError:  # None among them
            pass
        else:
            if max(totals) <= MAX_INT64:
                found["total_tokens"] = totals
                return
    columns: list[str] = [column for column in USAGE_COLUMNS if column in found]
    spans: list[dict[str, Any]] = [
        {column: value for column, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*(found[column] for column in columns), strict=True)
    ]
    for span in spans:
        add_totals(span)
    for column in USAGE_COLUMNS:
        found[column] = [span.get(column) for span in spans]


def _fill_environment(
    found: dict[str, list[Any]], resource_attributes: Sequence[Mapping[str, Any]]
) -> None:
    # Spans of one process share their resource, mostly as one object.
    distinct = {id(resource): resource for resource in resource_attributes}
    known = {key: _environment_of(resource) for key, resource in distinct.items()}
    if any(known.values()):
        environments = [known[id(resource)] for resource in resource_attributes]
        found["environment"] = _filled(found.get("environment"), environments)


def _environment_of(resource: Mapping[str, Any]) -> str | None:
    for key in ENVIRONMENT_KEYS:
        if key in resource:
            environment = read_text(resource[key])
            if environment is not None:
                return environment
    return None
