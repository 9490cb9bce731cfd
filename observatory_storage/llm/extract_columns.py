"""`facts` of many spans at once, column by column: the same values in less time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import repeat
from operator import add
from types import NoneType
from typing import Any, Final, NamedTuple

from observatory_storage.llm.aliases import ENVIRONMENT_OF_RESOURCE, SCOPED, readers_of
from observatory_storage.llm.dialects import USAGE_COLUMNS
from observatory_storage.llm.extract import (
    LITELLM_SCOPES,
    NAMED_BY_KIND,
    NAMING_KINDS,
    UNKNOWN_COURSE,
    Courses,
    add_totals,
    complete,
)
from observatory_storage.llm.first_token import COMPLETION_START, fitting
from observatory_storage.llm.readers import (
    MAX_INT64,
    MAX_TEXT_BYTES,
    read_finish_reason,
    read_text,
    read_tokens,
    structure,
    value_at,
)
from observatory_storage.llm.token_details import (
    CORRECTED,
    COUNTED_DETAILS,
    COUNTS,
    TOKEN_DETAILS,
    fits,
)

__all__ = ["facts_by_column"]

_SIDES: Final = ("prompt_tokens", "completion_tokens")
# Spans of these scopes, and spans with these attributes, are completed one by one.
_CORRECTED_SCOPES: Final = LITELLM_SCOPES | SCOPED.keys()
_CORRECTED_KEYS: Final = frozenset({COMPLETION_START, *CORRECTED})


def facts_by_column(
    attributes: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    scope_names: Sequence[str | None],
    resource_attributes: Sequence[Mapping[str, Any]],
    courses: Courses | None = None,
) -> dict[str, list[Any]]:
    """Read the LLM columns of spans from their attributes; None for unknown values.

    `facts` describes the columns. A column that is unknown for all spans is absent.

    Args:
        courses: when each span ran, and its events; None if neither is known for any of them.
    """
    keys = set[Any]().union(*attributes)
    found: dict[str, list[Any]] = {}
    _read(attributes, keys, found)
    _read_scoped(attributes, keys, scope_names, found)
    _complete(_Spans(attributes, keys, names, scope_names, courses), found)
    if not found.keys().isdisjoint(USAGE_COLUMNS):
        _add_totals(found)
    _fill_environment(found, resource_attributes)
    return found


def _read(
    attributes: Sequence[Mapping[str, Any]], keys: AbstractSet[Any], found: dict[str, list[Any]]
) -> None:
    """Read the values of single attributes, and of values within them."""
    inside: dict[str, tuple[list[Any], AbstractSet[Any]]] = {}
    # The attribute of the least rank goes first: others only fill what it leaves unknown.
    for key, reader in readers_of(keys):
        before = found.get(reader.column)
        if before is not None and None not in before:
            continue
        if reader.path:
            if key not in inside:
                structures = [structure(given.get(key)) for given in attributes]
                inside[key] = structures, _first_steps(structures)
            structures, steps = inside[key]
            if reader.path[0] not in steps:
                continue
            given_values = [
                None if given is None else value_at(given, reader.path) for given in structures
            ]
        else:
            given_values = [given.get(key) for given in attributes]
        values = _all_read(given_values, reader.read)
        found[reader.column] = values if before is None else _filled(before, values)


def _first_steps(structures: list[Any]) -> AbstractSet[Any]:
    """The keys of structures, most of which have the same few of all that could be read."""
    steps = set[Any]()
    for given in structures:
        if isinstance(given, dict):
            steps.update(given)
        elif given:
            steps.update(map(str, range(min(len(given), 10))))
    return steps


def _read_scoped(
    attributes: Sequence[Mapping[str, Any]],
    keys: AbstractSet[Any],
    scope_names: Sequence[str | None],
    found: dict[str, list[Any]],
) -> None:
    for scope in SCOPED.keys() & set(scope_names):
        for key in SCOPED[scope].keys() & keys:
            reader = SCOPED[scope][key]
            values = [
                reader.read(given.get(key)) if scope_name == scope else None
                for given, scope_name in zip(attributes, scope_names, strict=True)
            ]
            found[reader.column] = _filled(found.get(reader.column), values)


class _Spans(NamedTuple):
    attributes: Sequence[Mapping[str, Any]]
    keys: AbstractSet[Any]
    names: Sequence[str]
    scope_names: Sequence[str | None]
    courses: Courses | None


def _complete(spans: _Spans, found: dict[str, list[Any]]) -> None:
    """The same as `complete` of each span. Most spans need little of it."""
    attributes, keys, names, scope_names, courses = spans
    count = len(attributes)
    if _CORRECTED_KEYS.isdisjoint(keys) and _CORRECTED_SCOPES.isdisjoint(scope_names):
        special = _special(keys, courses, found)
    else:
        special = list(range(count))
    if special:
        columns = list(found.items())
        for index in special:
            span = {
                column: values[index] for column, values in columns if values[index] is not None
            }
            course = UNKNOWN_COURSE if courses is None else courses.at(index)
            complete(span, attributes[index], names[index], scope_names[index], course)
            for column, values in found.items():
                values[index] = span.pop(column, None)
            for column, value in span.items():
                found[column] = [None] * count
                found[column][index] = value
    if "response_model" in found and ("model" not in found or None in found["model"]):
        found["model"] = _filled(found.get("model"), found["response_model"])
    _take_details(found)


def _special(
    keys: AbstractSet[Any], courses: Courses | None, found: dict[str, list[Any]]
) -> list[int]:
    """The spans that have to be completed one by one."""
    special: set[int] = set()
    if courses is not None:
        special.update(index for index, events in enumerate(courses.events) if events)
        if "ttft_ms" in found and courses.durations_us is not None:
            pairs = zip(found["ttft_ms"], courses.durations_us, strict=True)
            special.update(
                index
                for index, (ttft_ms, duration_us) in enumerate(pairs)
                if ttft_ms is not None and fitting(ttft_ms, duration_us) != ttft_ms
            )
    if "operation" in found and not keys.isdisjoint(NAMING_KINDS):
        special.update(
            index
            for index, operation in enumerate(found["operation"])
            if operation in NAMED_BY_KIND
        )
    if not found.keys().isdisjoint(COUNTED_DETAILS):
        special.update(_inconsistent(found))
    return sorted(special)


def _inconsistent(found: dict[str, list[Any]]) -> list[int]:
    """The spans whose token counts may not include their details."""
    columns = (found.get(name, repeat(None)) for name in COUNTS)
    rows = enumerate(zip(*columns, strict=False))
    return [
        index
        for index, (prompt, completion, total, read, write, reasoning) in rows
        if (read or write or reasoning)
        and not fits(prompt, completion, total, (read or 0) + (write or 0), reasoning)
    ]


def _take_details(found: dict[str, list[Any]]) -> None:
    names = [name for name in TOKEN_DETAILS if name in found]
    if not names:
        return
    columns = [found.pop(name) for name in names]
    details: list[dict[str, int] | None]
    if len(columns) == 1:
        details = [{names[0]: count} if count else None for count in columns[0]]
    else:
        details = [
            {name: count for name, count in zip(names, counts, strict=True) if count}
            if any(counts)
            else None
            for counts in zip(*columns, strict=True)
        ]
    if any(details):
        found["token_details"] = _filled(found.get("token_details"), details)


def _all_read(values: list[Any], read: Callable[[object], Any]) -> list[Any]:
    kinds = set(map(type, values))
    has_none = NoneType in kinds
    kinds.discard(NoneType)
    if not kinds:
        return values
    if kinds == {list} and read is read_finish_reason:
        # Mostly one text a span, and the same for all spans.
        values = [value[0] if value and type(value[0]) is str else value for value in values]
        kinds = set(map(type, values)) - {NoneType}
    if kinds == {str}:
        if read is read_text and not has_none and _are_plain(values):
            return values
        known = {value: read(value) for value in set(values) if value is not None}
        known[None] = None
        return [known[value] for value in values]
    if (
        kinds == {int}
        and read is read_tokens
        and not has_none
        and min(values) >= 0
        and max(values) <= MAX_INT64
    ):
        return values
    return [None if value is None else read(value) for value in values]


def _are_plain(values: list[str]) -> bool:
    """Whether all values are texts that `read_text` returns unchanged, which is told quickly."""
    joined = "".join(values)
    lengths = set(map(len, values))
    return (
        joined.isascii()
        and '"' not in joined
        and "\0" not in joined
        and min(lengths) > 0
        and max(lengths) <= MAX_TEXT_BYTES
    )


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
    for key in ENVIRONMENT_OF_RESOURCE:
        if key in resource:
            environment = read_text(resource[key])
            if environment is not None:
                return environment
    return None
