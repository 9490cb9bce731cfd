"""Which rollups answer a query for spans: by its filters and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.models import (
    SpanRollupDay,
    SpanRollupHour,
    SpanRollupMinute,
    UserRollupDay,
    UserRollupHour,
)
from observatory_storage.repositories.reading.filter_fields import (
    Conditions,
    bound,
    negated,
    rules_of,
)
from observatory_storage.repositories.reading.operators import Not
from observatory_storage.repositories.reading.rollup_pieces import Unit
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = [
    "SPANS_FAMILY",
    "USERS_FAMILY",
    "Family",
    "family_of",
    "given_filters",
    "rolled_conditions",
]

_NOT_CONDITIONS: Final = frozenset({"start_time", "end_time", "limit"})


@dataclass(frozen=True)
class Family:
    """Rollups of several units, with the same columns.

    Attributes:
        models: the models by unit.
        columns: filter or group -> the column.
    """

    models: Mapping[Unit, Any]
    columns: Mapping[str, str]


SPANS_FAMILY: Final = Family(
    {"minute": SpanRollupMinute, "hour": SpanRollupHour, "day": SpanRollupDay},
    {
        "service_name": "service_name",
        "operation": "name",
        "name": "name",
        "gen_ai_operation": "operation",
        "provider": "provider",
        "model": "model",
        "environment": "environment",
        "status": "status",
    },
)
USERS_FAMILY: Final = Family(
    {"hour": UserRollupHour, "day": UserRollupDay},
    {"user_id": "user_id", "provider": "provider", "model": "model"},
)


def given_filters(filters: SpanFilters) -> set[str]:
    """The names of the filters that are set, without the range of time."""
    names = rules_of(SpanFilters).keys() - _NOT_CONDITIONS
    return {name for name in names if getattr(filters, name) is not None}


def family_of(filters: SpanFilters, groups: Iterable[str]) -> Family | None:
    """The rollups that have all columns of the filters and groups; None if there are none."""
    wanted = given_filters(filters) | {*groups}
    if wanted <= SPANS_FAMILY.columns.keys():
        return SPANS_FAMILY
    # Spans without a user are not in the rollups of users.
    of_users = filters.user_id is not None and not isinstance(filters.user_id, Not)
    return USERS_FAMILY if of_users and wanted <= USERS_FAMILY.columns.keys() else None


def rolled_conditions(filters: SpanFilters, model: Any) -> Conditions:
    """The conditions of the filters on a rollup, without the range of time."""
    rules = rules_of(SpanFilters)
    given = bound(
        {
            name: value
            for field in given_filters(filters)
            for name, value in rules[field].parameters(field, getattr(filters, field)).items()
        }
    )
    conditions = [rules[field].condition for field in given_filters(filters)]
    found: list[sa.ColumnElement[bool]] = [
        each for condition in conditions for each in condition(model, given)
    ]
    return [*found, *negated(model, given, conditions)]
