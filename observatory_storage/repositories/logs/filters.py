"""Which logs, metrics and points: frozen dataclasses in which None means any.

As with those of traces and spans, values and keys are literal, and time ranges half-open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import and_, or_

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import Conditions, equal, put, within
from observatory_storage.repositories.reading.text_search import has_substring, has_words
from observatory_storage.repositories.reading.validation import AttributeValue

__all__ = ["LEVELS", "LogFilters"]

# The least severity number of each level of OpenTelemetry.
LEVELS: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}


@dataclass(frozen=True, slots=True)
class LogFilters:
    """Which log records: those that meet every condition.

    Args:
        min_severity: a severity number (1 to 24) or the name of a level (``"WARN"``). A record
            without a severity number does not meet it.
        trace_id: hex text or UUID.
        start_time: records of this time or later.
        end_time: records before this time.
        attributes: keys to text, numbers or bools, each to be met by the record's own attributes,
            its resource's or its scope's.
        text: words that the body must have, as in a web search: all of them, ``"a phrase"``,
            ``or``, ``-not``, ``begin*``. Words are taken as written, without regard to case.
        contains: what the body must have in it, as it stands but for upper and lower case. No
            index helps: all bodies of the time range are read, so ``start_time`` must be given.
        limit: the most rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    service_name: str | None = None
    min_severity: int | str | None = None
    trace_id: str | UUID | None = None
    span_id: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    attributes: Mapping[str, AttributeValue] | None = None
    text: str | None = None
    limit: int = 50
    contains: str | None = None

    def __post_init__(self) -> None:
        put(self, "service_name", validation.text("service_name", self.service_name))
        severity = validation.severity("min_severity", self.min_severity, LEVELS)
        put(self, "min_severity", severity)
        if self.trace_id is not None:
            put(self, "trace_id", ids.trace_uuid(self.trace_id))
        if self.span_id is not None:
            put(self, "span_id", ids.span_id(self.span_id))
        start, end = validation.times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        put(self, "attributes", validation.attributes("attributes", self.attributes))
        put(self, "text", validation.search("text", self.text))
        put(self, "contains", validation.substring("contains", self.contains))
        if self.contains is not None and start is None:
            raise ValidationError("start_time", None, "is required where contains is given")
        validation.limit(self.limit)

    def conditions(self) -> Conditions:
        """The conditions on `LogRecord`."""
        found = equal(self, LogRecord.service_name, LogRecord.trace_id, LogRecord.span_id)
        if self.min_severity is not None:
            found.append(LogRecord.severity_number >= self.min_severity)
        found += within(LogRecord.timestamp, self.start_time, self.end_time)
        for key, value in (self.attributes or {}).items():
            pair = {key: value}
            found.append(
                or_(
                    LogRecord.attributes.contains(pair),
                    LogRecord.resource_attributes.contains(pair),
                    LogRecord.scope_attributes.contains(pair),
                )
            )
        if self.text is not None:
            words = has_words(LogRecord.search_vector(LogRecord.__table__.c.body), self.text)
            # The index has only rows with a body, and the planner wants to be told.
            found.append(and_(LogRecord.body.is_not(None), words))
        if self.contains is not None:
            found.append(has_substring(LogRecord.body, self.contains))
        return found
