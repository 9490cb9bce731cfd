"""Decides conditions of filters on published values, exactly as PostgreSQL does on stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from observatory_storage.repositories.reading import operators
from observatory_storage.repositories.reading.field_conditions import Given, Row, decides
from observatory_storage.repositories.reading.filter_fields import Filters

__all__ = ["LiveFilter"]


class LiveFilter:
    """The conditions of filters that published values decide.

    Args:
        filters: the filters.

    Attributes:
        undecided: the fields that are set and that PostgreSQL alone decides.
    """

    def __init__(self, filters: Filters) -> None:
        self._conditions: list[tuple[Callable[[Row, Given], bool | None], Given, bool]] = []
        self.undecided: list[str] = []
        for name, rule, value in filters.given():
            parameters: Mapping[str, Any] = rule.parameters(name, value)
            if not parameters:
                continue
            holds = decides(rule.condition)
            if holds is None:
                self.undecided.append(name)
                continue
            excluded = operators.excluded(parameters)
            if len(excluded) < len(parameters):
                self._conditions.append((holds, parameters, True))
            if excluded:
                self._conditions.append((holds, excluded, False))

    def meets(self, row: Row) -> bool:
        """Whether the row meets the conditions that are decided here. NULL meets a negation."""
        for holds, given, wanted in self._conditions:
            if (holds(row, given) is True) is not wanted:
                return False
        return True
