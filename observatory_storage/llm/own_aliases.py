"""The application's own attribute names for LLM columns, which come before those of all dialects.

They apply to the whole process: rows are also prepared where no pool is known, as in `LlmSpan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final, TypeVar

from observatory_storage.errors import ConfigError
from observatory_storage.llm.aliases import (
    ENVIRONMENT_OF_RESOURCE,
    NESTED,
    PLAIN,
    compiled,
    parsed_alias,
)
from observatory_storage.llm.dialects import ALIASES, ENVIRONMENT_KEYS
from observatory_storage.llm.reading_plans import PLANS
from observatory_storage.llm.token_details import TOKEN_DETAILS

__all__ = ["aliases_of", "use_own_aliases"]

_T = TypeVar("_T")

_COLUMNS: Final = ALIASES | TOKEN_DETAILS
_own: dict[str, tuple[str, ...]] = {}


def aliases_of(column: str) -> tuple[str, ...]:
    """All aliases of a column, by precedence: the application's own, then those of the dialects."""
    return (*_own.get(column, ()), *_COLUMNS[column])


def use_own_aliases(own: Mapping[str, Sequence[str]]) -> None:
    """Read these attributes first. They replace those of an earlier call.

    Args:
        own: column, or key in `token_details` -> its attributes, by precedence.

    Raises:
        ConfigError: a column is unknown, an alias is not valid, or stands for two columns.
    """
    problems = _problems(own)
    if problems:
        raise ConfigError("\n".join(problems))
    tables = {column: (*own.get(column, ()), *known) for column, known in _COLUMNS.items()}
    taken = {alias for aliases in own.values() for alias in aliases}
    # What the application names for one column is no longer read for another.
    tables = {
        column: tuple(
            alias for alias in aliases if alias in own.get(column, ()) or alias not in taken
        )
        for column, aliases in tables.items()
    }
    plain, nested = compiled(tables)
    # Replaced in place, because other modules hold these tables.
    _replace(PLAIN, plain)
    _replace(NESTED, nested)
    PLANS.forget()
    ENVIRONMENT_OF_RESOURCE[:] = [
        key for key in tables["environment"] if key in ENVIRONMENT_KEYS or not parsed_alias(key)[1]
    ]
    _own.clear()
    _own.update((column, tuple(aliases)) for column, aliases in own.items())


def _replace(table: dict[str, _T], new: dict[str, _T]) -> None:
    for key in table.keys() - new.keys():
        del table[key]
    table.update(new)


def _problems(own: Mapping[str, Sequence[str]]) -> list[str]:
    problems = []
    column_of: dict[str, str] = {}
    for column, aliases in own.items():
        if column not in _COLUMNS:
            near = get_close_matches(column, _COLUMNS, 1)
            hint = f"; did you mean {near[0]}?" if near else f": one of {', '.join(_COLUMNS)}"
            problems.append(f"llm.aliases.{column}: is not a column that attributes give{hint}")
            continue
        for alias in aliases:
            try:
                parsed_alias(alias)
            except ValueError as error:
                problems.append(f"llm.aliases.{column}: {error}")
            if column_of.setdefault(alias, column) != column:
                problems.append(
                    f"llm.aliases.{column}: {alias} stands for {column_of[alias]} already"
                )
    return problems
