"""Filters of log records: frozen dataclasses. A field that is None does not filter.

Values and keys are matched literally: there are no wildcards and no paths. Other comparisons are
operators, such as `Prefix`. Time ranges are half-open: [start_time, end_time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, TypedDict

from sqlalchemy import ColumnElement, Text, and_, not_, or_, type_coerce
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.llm.content_search import content_of_log
from observatory_storage.models import LogRecord
from observatory_storage.models.search_words import matches, substring_pattern
from observatory_storage.models.severities import LEVELS, SEVERITIES, names_from
from observatory_storage.repositories.reading import (
    attribute_conditions,
    content_conditions,
    validation,
)
from observatory_storage.repositories.reading.content_conditions import (
    contains_words,
    has_substring,
    has_words,
)
from observatory_storage.repositories.reading.filter_fields import (
    Conditions,
    Filters,
    Given,
    InBoth,
    at_least,
    before,
    bound,
    conditions_on,
    equals,
    filter_field,
    limit_field,
    trace_parameters,
)
from observatory_storage.repositories.reading.operators import Exists, Not, Prefix, TextFilter
from observatory_storage.repositories.reading.text_search import TextSearch, has_plain_words
from observatory_storage.repositories.reading.validation import AttributeFilter, TraceFilter

# As `upper` of PostgreSQL with the collation C.
_UPPER: Final = str.maketrans(ascii_lowercase, ascii_uppercase)

__all__ = ["LEVELS", "LogFilters", "LogKeywords", "LogSearchKeywords"]

# The name of the condition that decides for records with values in frames.
FRAMED: Final = "framed"


class LogSearchKeywords(TypedDict, total=False):
    """The fields of `LogFilters` except `text`."""

    service_name: TextFilter | None
    min_severity: int | str | None
    trace_id: TraceFilter | None
    span_id: TextFilter | None
    start_time: datetime | None
    end_time: datetime | None
    event_name: TextFilter | None
    attributes: Mapping[str, AttributeFilter] | None
    limit: int
    contains: str | None


class LogKeywords(LogSearchKeywords, total=False):
    """The fields of `LogFilters`, for methods that take them as keywords."""

    text: str | None


def _severity(field: str, value: Any) -> int:
    if not isinstance(value, str):
        return validation.integer(field, value, lowest=1, highest=24)
    found = SEVERITIES.get(value.upper())
    if found is None:
        rule = f"must be 1 to 24 or one of {', '.join(LEVELS)}, WARNING, CRITICAL, or as DEBUG2"
        raise ValidationError(field, value, rule)
    return found


def _severity_parameters(name: str, value: int) -> dict[str, Any]:
    return {name: value, "severity_names": names_from(value)}


def _is_severe(record: Any, given: Given) -> Conditions:
    if "min_severity" not in given:
        return []
    names = type_coerce(given["severity_names"], ARRAY(Text))
    return [record.is_at_least(given["min_severity"], names)]


def _is_as_severe(record: Mapping[str, Any], given: Given) -> bool | None:
    if "min_severity" not in given:
        return None
    number, text = record["severity_number"], record["severity_text"]
    if number is not None:
        return bool(number >= given["min_severity"])
    return text is not None and text.translate(_UPPER) in given["severity_names"]


def _has_attributes(record: Any, given: Given) -> Conditions:
    digests = record.payload_digests.op("->", return_type=JSONB())(sql("'attributes'"))
    others = (record.resource_attributes, record.scope_attributes)
    return [
        or_(one.is_in(record.attributes, digests), *(one.is_in(column) for column in others))
        for one in attribute_conditions.attributes_of("attributes", given)
    ]


def _in_content(record: Any, given: Given, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition on what a record has to search beside a text body.

    Args:
        given: has `FRAMED` if records may have values in frames: the condition that decides there.
    """
    framed = given.get(FRAMED)
    if framed is not None:
        condition = or_(and_(record.payload_frame.is_(None), condition), framed)
    return and_(record.is_structured(), condition)


def _has_words(record: Any, given: Given) -> Conditions:
    body = LogRecord.__table__.c.body if record is LogRecord else record.body
    vector = LogRecord.search_vector(body)
    if "words" in given:
        words, letters = given["words"], given.get("letters")
        in_content = contains_words(content_of_log(record), words, letters)
        return [or_(has_plain_words(vector, words), _in_content(record, given, in_content))]
    if "text" not in given:
        return []
    search = TextSearch(given["text"])

    def has_literal(written: str) -> ColumnElement[bool]:
        return matches(record.body, substring_pattern(written))

    in_body = search.condition(vector, has_literal)
    if search.excludes:  # the word may stand beside the body
        in_body = and_(in_body, not_(record.is_structured()))
    in_content = has_words(content_of_log(record), search)
    return [or_(in_body, _in_content(record, given, in_content))]


def _contains(record: Any, given: Given) -> Conditions:
    if "content" not in given:
        return []
    value = given["content"]
    in_body = matches(record.body, substring_pattern(value))
    content = has_substring(content_of_log(record), value)
    return [or_(in_body, _in_content(record, given, content))]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilters(Filters):
    """Selects the log records that meet every condition. A field that is None does not filter.

    ``service_name``, ``trace_id``, ``span_id``, ``event_name`` and the keys of ``attributes`` take
    the same operators as the fields of `TraceFilters`. A record without a value matches
    ``Not("a value")``.

    Args:
        min_severity: the lowest severity, inclusive: a severity number (1 to 24) or a level name in
            upper or lower case. Level names are OpenTelemetry's (``"WARN"``, ``"DEBUG2"``), those
            of Python's logging module (``"WARNING"``, ``"CRITICAL"``) and those that
            OpenTelemetry's log data model maps. If a record has no severity number, its
            ``severity_text`` is taken as a level name. If the text is not a known name, the record
            never matches.
        trace_id: hex text, UUID or the `Trace`.
        event_name: the name of the event type. Older SDKs give it as an attribute instead:
            ``attributes={"event.name": …}``.
        start_time: only records of this time or later.
        end_time: only records before this time.
        attributes: a mapping of attribute keys to text, numbers, bools or lists. Each pair must be
            in the attributes of the record, of its resource or of its scope. A value also matches a
            list that contains it. A list matches an equal list. A ``Prefix`` of an attribute has at
            most 100 characters, since large values may be stored beside their rows.
        text: words to search for in the body, text or JSON, and in the attributes of events; of
            events with messages of a model, in the prompts and completions. The syntax is that of a
            web search: all words, ``"a phrase"``, ``or``, ``-not``, ``begin*``. Case is ignored.
            Words are not stemmed. A word with other characters than letters and digits, such as an
            address or a path, is compared literally.
        contains: a substring of any of these. Case is ignored; all other characters are literal. No
            index serves it: the query reads all records of the time range, so ``start_time`` is
            required.
        limit: the maximum number of rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    service_name: TextFilter | None = filter_field(validation.text, equals("service_name"))
    min_severity: int | str | None = filter_field(
        _severity, InBoth(_is_severe, _is_as_severe), parameters=_severity_parameters
    )
    trace_id: TraceFilter | None = filter_field(
        validation.trace_key, equals("trace_id"), parameters=trace_parameters
    )
    span_id: TextFilter | None = filter_field(
        lambda field, value: ids.span_id(value, field), equals("span_id")
    )
    event_name: TextFilter | None = filter_field(validation.text, equals("event_name"))
    start_time: datetime | None = filter_field(
        validation.moment, at_least("timestamp", "start_time")
    )
    end_time: datetime | None = filter_field(validation.moment, before("timestamp", "end_time"))
    attributes: Mapping[str, AttributeFilter] | None = filter_field(
        attribute_conditions.checked_movable,
        _has_attributes,
        parameters=attribute_conditions.attribute_parameters,
        is_hashable=False,
    )
    text: str | None = filter_field(
        validation.search, _has_words, parameters=content_conditions.words_parameters
    )
    limit: int = limit_field()
    contains: str | None = filter_field(
        validation.substring,
        _contains,
        parameters=lambda _, value: {"content": value},
    )

    def _check_together(self) -> None:
        validation.in_order(self.start_time, self.end_time)
        if self.contains is not None and self.start_time is None:
            raise ValidationError("start_time", None, "is required where contains is given")

    def searches_content(self) -> bool:
        """Whether values that may stand in frames decide."""
        return self.text is not None or self.contains is not None

    def conditions_with(self, framed: ColumnElement[bool]) -> Conditions:
        """The conditions, if those on content are decided elsewhere for records with frames.

        Args:
            framed: the condition on such a record.
        """
        given = {**bound(self.parameters()), FRAMED: framed}
        return conditions_on(LogRecord, self._rules, given)

    def content_conditions(self, record: Any) -> Conditions:
        """The conditions on content.

        Args:
            record: has the columns that content stands in.
        """
        given = bound(self.parameters())
        return [*_has_words(record, given), *_contains(record, given)]

    def has_indexed_attribute(self) -> bool:
        """Whether an index of attributes finds the records, if they are few."""
        wanted = (self.attributes or {}).values()
        return any(not isinstance(value, (Not, Exists, Prefix)) for value in wanted)

    def listed(self) -> Any:
        return LogRecord
