"""The tables of attribute names, made ready to read spans with.

An alias is the key of an attribute. It may be followed by steps into a structure, or into JSON in
text: ``app.context[user][id]``, ``mlflow.linkedPrompts[0][name]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from observatory_storage.llm.dialects import (
    ALIASES,
    ALIASES_OF_SCOPE,
    ENVIRONMENT_KEYS,
    IN_SECONDS,
    USAGE_COLUMNS,
)
from observatory_storage.llm.readers import (
    read_finish_reason,
    read_operation,
    read_provider,
    read_seconds,
    read_tokens,
    reader_of,
)
from observatory_storage.llm.token_details import TOKEN_DETAILS

__all__ = [
    "ENVIRONMENT_OF_RESOURCE",
    "NESTED",
    "PLAIN",
    "READ_AS",
    "SCOPED",
    "Reader",
    "compiled",
    "holding",
    "parsed_alias",
    "plain_readers_of",
    "readers_of",
]

_ALIAS: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]+\])*)")

# Columns that are read in a way of their own, rather than by their type alone.
READ_AS: Final[dict[str, Callable[[object], Any]]] = {
    "operation": read_operation,
    "provider": read_provider,
    "finish_reason": read_finish_reason,
    **dict.fromkeys(TOKEN_DETAILS, read_tokens),
}


class Reader(NamedTuple):
    """How an alias is read.

    Attributes:
        column: the column of `TraceSpan`, or the key in `token_details`, that it fills.
        rank: its precedence among the aliases of the column: the least rank wins.
        read: converts the value to the column's; None if it is not valid.
        is_usage: whether the column is tokens or a cost.
        path: the steps from the attribute's value to the value that is read.
    """

    column: str
    rank: int
    read: Callable[[object], Any]
    is_usage: bool
    path: tuple[str, ...] = ()


def parsed_alias(alias: str) -> tuple[str, tuple[str, ...]]:
    """The key of an alias, and the steps behind it.

    Raises:
        ValueError: the alias is not written as a key with steps.
    """
    match = _ALIAS.fullmatch(alias)
    if match is None:
        raise ValueError(f"must be written as app.user or app.context[user], not {alias!r}")
    return match[1], tuple(match[2][1:-1].split("][")) if match[2] else ()


def holding(alias: str, value: object) -> dict[str, Any]:
    """The attributes of a span in which an alias has a value, and nothing else."""
    key, path = parsed_alias(alias)
    for step in reversed(path):
        value = [value] if step.isdecimal() else {step: value}
    return {key: value}


def _reader(column: str, rank: int, key: str, path: tuple[str, ...]) -> Reader:
    read = read_seconds if key in IN_SECONDS else READ_AS.get(column) or reader_of(column)
    return Reader(column, rank, read, column in USAGE_COLUMNS, path)


def compiled(
    tables: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, Reader], dict[str, tuple[Reader, ...]]]:
    """The readers of aliases: those of attributes, and those of values within an attribute."""
    plain: dict[str, Reader] = {}
    nested: dict[str, tuple[Reader, ...]] = {}
    for column, aliases in tables.items():
        for rank, alias in enumerate(aliases):
            key, path = parsed_alias(alias)
            reader = _reader(column, rank, key, path)
            if path:
                nested[key] = (*nested.get(key, ()), reader)
            else:
                plain[key] = reader
    return plain, nested


# `own_aliases` replaces the contents of these.
PLAIN, NESTED = compiled(ALIASES | TOKEN_DETAILS)
ENVIRONMENT_OF_RESOURCE: Final = list(ENVIRONMENT_KEYS)
SCOPED: Final[dict[str, dict[str, Reader]]] = {
    scope: {
        key: _reader(column, len(ALIASES.get(column, ())), key, ()) for column, key in table.items()
    }
    for scope, table in ALIASES_OF_SCOPE.items()
}


# Both look each key up, since another thread may be replacing the tables.
def plain_readers_of(keys: Iterable[Any]) -> list[tuple[Any, Reader]]:
    """The keys that are an alias by themselves, and their readers, the least rank first."""
    readers = [(key, reader) for key in keys if (reader := PLAIN.get(key)) is not None]
    return sorted(readers, key=_rank)


def readers_of(keys: Iterable[Any]) -> list[tuple[Any, Reader]]:
    """The same with the readers of values within an attribute."""
    nested = [(key, reader) for key in keys for reader in NESTED.get(key, ())]
    return sorted(plain_readers_of(keys) + nested, key=_rank)


def _rank(keyed: tuple[Any, Reader]) -> int:
    return keyed[1].rank
