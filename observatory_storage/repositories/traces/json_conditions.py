"""What is looked for in several places at once: an attribute, or words of prompts and completions.

A span has it where one of its own columns has it, or one of its events. In a closed partition an
index finds either; an OR of the two, none: so the places also come one by one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, and_, cast, exists, func, or_

from observatory_storage.llm.content import content_vector
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.conditions import within
from observatory_storage.repositories.reading.text_search import has_words

__all__ = ["Attribute", "Sought", "Words", "anywhere"]


class Sought(Protocol):
    """What a span, an event or a trace without spans may have."""

    def in_span(self) -> ColumnElement[bool]: ...
    def in_event(self) -> ColumnElement[bool]: ...
    def in_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]: ...


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: a span's own, its resource's, its scope's, its links' or its events'.

    Args:
        pair: the key with the value, as an object.
        linked: links that hold a link with this pair.
    """

    pair: Any
    linked: Any

    def in_span(self) -> ColumnElement[bool]:
        return or_(
            TraceSpan.attributes.contains(self.pair),
            TraceSpan.resource_attributes.contains(self.pair),
            TraceSpan.scope_attributes.contains(self.pair),
            TraceSpan.links.contains(self.linked),
        )

    def in_event(self) -> ColumnElement[bool]:
        return TraceEvent.attributes.contains(self.pair)

    def in_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        places = (trace.attributes, trace.resource_attributes)
        return or_(*(place.contains(self.pair) for place in places))


@dataclass(frozen=True, slots=True)
class Words:
    """Words in the prompts and completions of a span, or of one of its events."""

    text: str

    def in_span(self) -> ColumnElement[bool]:
        return self._in(TraceSpan.attributes)

    def in_event(self) -> ColumnElement[bool]:
        return self._in(TraceEvent.attributes)

    def in_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        return self._in(trace.attributes)

    def _in(self, attributes: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        found = has_words(content_vector(attributes), self.text)
        word = _required_word(self.text)
        if word is None:
            return found
        # Where there is no index: to look for letters costs a twentieth of what parsing does.
        written = cast(attributes, Text)
        has_letters: ColumnElement[bool] = written.ilike(f"%{word}%")
        if not word.isascii():  # JSON in text may write it with escapes
            has_letters = or_(has_letters, func.strpos(written, "\\u") > 0)
        return and_(has_letters, found)


def anywhere(
    sought: Sought, start: datetime | None = None, end: datetime | None = None
) -> ColumnElement[bool]:
    """The condition on `TraceSpan` that it or one of its events has what is sought.

    Args:
        start: the span starts at this time or later.
        end: the span starts before this time.
    """
    event = exists().where(
        TraceEvent.trace_id == TraceSpan.trace_id,
        TraceEvent.span_id == TraceSpan.span_id,
        TraceEvent.span_start_time == TraceSpan.start_time,
        TraceEvent.span_start_ns == TraceSpan.start_ns,
        # Implied too, and no equality: nothing may be hashed instead of looked up, which would read
        # all events there are.
        TraceEvent.span_start_time <= TraceSpan.start_time,
        sought.in_event(),
        # Implied by the span's own bounds, but the planner does not carry ranges over.
        *within(TraceEvent.span_start_time, start, end),
    )
    return or_(sought.in_span(), event)


# Tags and entities are left out by PostgreSQL's parser, a minus may negate what follows.
_UNCERTAIN: Final = re.compile(r"[<>&]|(?<!\w)-|-(?!\w)|\bor\b", re.IGNORECASE)
_AROUND: Final = "\"'.,;:?!()"
_SHORTEST: Final = 3


def _required_word(text: str) -> str | None:
    """A word, the longest, that stands letter by letter in whatever matches the text."""
    if _UNCERTAIN.search(text):
        return None
    words = (word.strip(_AROUND) for word in text.split())
    return max((word for word in words if _is_plain(word)), key=len, default=None)


def _is_plain(word: str) -> bool:
    """Whether PostgreSQL's parser too takes this for one word: letters, with digits behind them.

    Newer letters than those of Unicode 3.2 it may not know.
    """
    letters = word.rstrip("0123456789")
    return len(word) >= _SHORTEST and all(
        unicodedata.ucd_3_2_0.category(letter).startswith("L") for letter in letters
    )
