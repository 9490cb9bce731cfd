"""Filters of log records: frozen dataclasses. A field that is None does not filter.

Values and keys are matched literally: there are no wildcards and no paths. Other comparisons are
operators, such as `Prefix`. Time ranges are half-open: [start_time, end_time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict

from sqlalchemy import and_, or_

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories.reading import text_search, validation
from observatory_storage.repositories.reading.attribute_paths import (
    has_path,
    paths_given,
    with_operators,
)
from observatory_storage.repositories.reading.filter_fields import (
    Conditions,
    Filters,
    Given,
    at_least,
    before,
    equals,
    filter_field,
    limit_field,
)
from observatory_storage.repositories.reading.operators import TextFilter
from observatory_storage.repositories.reading.validation import AttributeFilter, TraceFilter

__all__ = ["LEVELS", "LogFilters", "LogKeywords", "LogSearchKeywords"]

# The least severity number of each level of OpenTelemetry, which has four numbers.
LEVELS: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
# By the names of OpenTelemetry (DEBUG, DEBUG2, ...) and of Python's logging.
_SEVERITIES: Final = {
    **{
        f"{level}{step + 1 if step else ''}": number + step
        for level, number in LEVELS.items()
        for step in range(4)
    },
    "WARNING": LEVELS["WARN"],
    "CRITICAL": LEVELS["FATAL"],
}


class LogSearchKeywords(TypedDict, total=False):
    """The fields of `LogFilters` except `text`."""

    service_name: TextFilter | None
    min_severity: int | str | None
    trace_id: TraceFilter | None
    span_id: TextFilter | None
    start_time: datetime | None
    end_time: datetime | None
    attributes: Mapping[str, AttributeFilter] | None
    limit: int
    contains: str | None


class LogKeywords(LogSearchKeywords, total=False):
    """The fields of `LogFilters`, for methods that take them as keywords."""

    text: str | None


def _severity(field: str, value: Any) -> int:
    if not isinstance(value, str):
        return validation.integer(field, value, lowest=1, highest=24)
    found = _SEVERITIES.get(value.upper())
    if found is None:
        rule = f"must be 1 to 24 or one of {', '.join(LEVELS)}, WARNING, CRITICAL, or as DEBUG2"
        raise ValidationError(field, value, rule)
    return found


def _attribute_parameters(name: str, attributes: Any) -> dict[str, Any]:
    pairs = enumerate(attributes.items())
    return {f"{name}_{number}": {key: value} for number, (key, value) in pairs}


def _has_attributes(record: Any, given: Given) -> Conditions:
    found: Conditions = []
    while (name := f"attributes_{len(found)}") in given:
        columns = (record.attributes, record.resource_attributes, record.scope_attributes)
        found.append(or_(*(column.contains(given[name]) for column in columns)))
    columns = (record.attributes, record.resource_attributes, record.scope_attributes)
    paths = (or_(*(has_path(column, path) for column in columns)) for path in paths_given(given))
    return [*found, *paths]


def _has_words(record: Any, given: Given) -> Conditions:
    if "text" not in given:
        return []
    vector = LogRecord.search_vector(LogRecord.__table__.c.body)
    # The index is partial: its predicate must be in the statement.
    return [and_(record.body.is_not(None), text_search.has_words(vector, given["text"]))]


def _contains(record: Any, given: Given) -> Conditions:
    return [text_search.matches(record.body, given["contains"])] if "contains" in given else []


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilters(Filters):
    """Selects the log records that meet every condition. A field that is None does not filter.

    ``service_name``, ``trace_id``, ``span_id`` and the keys of ``attributes`` take operators as the
    fields of `TraceFilters` do. A record without a value matches ``Not("a value")``.

    Args:
        min_severity: the lowest severity, inclusive: a severity number (1 to 24) or a level name in
            upper or lower case. Level names are OpenTelemetry's (``"WARN"``, ``"DEBUG2"``) and
            those of Python's logging module (``"WARNING"``, ``"CRITICAL"``). Records without a
            severity number never match.
        trace_id: hex text, UUID or the `Trace`.
        start_time: only records of this time or later.
        end_time: only records before this time.
        attributes: a mapping of attribute keys to text, numbers or bools. Each pair must be in the
            attributes of the record, of its resource or of its scope.
        text: words to search for in the body, in web search syntax: all words, ``"a phrase"``,
            ``or``, ``-not``, ``begin*``. Case is ignored. Words are not stemmed.
        contains: a substring of the body. Case is ignored; all other characters are literal. No
            index serves it: the query reads all bodies of the time range, so ``start_time`` is
            required.
        limit: the maximum number of rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    service_name: TextFilter | None = filter_field(validation.text, equals("service_name"))
    min_severity: int | str | None = filter_field(
        _severity, at_least("severity_number", "min_severity")
    )
    trace_id: TraceFilter | None = filter_field(validation.trace_key, equals("trace_id"))
    span_id: TextFilter | None = filter_field(
        lambda field, value: ids.span_id(value, field), equals("span_id")
    )
    start_time: datetime | None = filter_field(
        validation.moment, at_least("timestamp", "start_time")
    )
    end_time: datetime | None = filter_field(validation.moment, before("timestamp", "end_time"))
    attributes: Mapping[str, AttributeFilter] | None = filter_field(
        validation.attributes,
        _has_attributes,
        parameters=with_operators(_attribute_parameters),
        is_hashable=False,
    )
    text: str | None = filter_field(validation.search, _has_words)
    limit: int = limit_field()
    contains: str | None = filter_field(
        validation.substring,
        _contains,
        parameters=lambda name, value: {name: text_search.substring_pattern(value)},
    )

    def _check_together(self) -> None:
        validation.in_order(self.start_time, self.end_time)
        if self.contains is not None and self.start_time is None:
            raise ValidationError("start_time", None, "is required where contains is given")

    def listed(self) -> Any:
        return LogRecord
