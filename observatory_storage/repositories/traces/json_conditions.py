"""Conditions on JSON: an attribute, or words of prompts and completions.

A span meets such a condition by its own columns, or by those of one of its events. In a closed
partition each of these places has an index, but no index serves an OR of them. Therefore the places
can also be searched one by one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, and_, cast, exists, func, or_

from observatory_storage.llm.content_search import content_vector
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.reading.filter_fields import Given, within
from observatory_storage.repositories.reading.text_search import has_words

__all__ = [
    "AttributeCondition",
    "JsonCondition",
    "WordsCondition",
    "attribute_conditions",
    "attribute_parameters",
    "on_span_or_events",
    "words_condition",
]


@dataclass(frozen=True, slots=True)
class AttributeCondition:
    """One attribute of a span, of its resource or scope, or of its links or events.

    Args:
        pair: a JSON object with the key and the value.
        linked: a JSON list of links, one of which has this pair.
    """

    pair: Any
    linked: Any

    def on_span(self) -> ColumnElement[bool]:
        return or_(
            TraceSpan.attributes.contains(self.pair),
            TraceSpan.resource_attributes.contains(self.pair),
            TraceSpan.scope_attributes.contains(self.pair),
            TraceSpan.links.contains(self.linked),
        )

    def on_event(self) -> ColumnElement[bool]:
        return TraceEvent.attributes.contains(self.pair)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        columns = (trace.attributes, trace.resource_attributes)
        return or_(*(column.contains(self.pair) for column in columns))


@dataclass(frozen=True, slots=True)
class WordsCondition:
    """Words in the prompts and completions of a span, or of one of its events."""

    text: str

    def on_span(self) -> ColumnElement[bool]:
        return self._in(TraceSpan.attributes)

    def on_event(self) -> ColumnElement[bool]:
        return self._in(TraceEvent.attributes)

    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        return self._in(trace.attributes)

    def _in(self, attributes: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        found = has_words(content_vector(attributes), self.text)
        word = _required_word(self.text)
        if word is None:
            return found
        # For rows without an index: searching for letters costs a twentieth of parsing.
        written = cast(attributes, Text)
        has_letters: ColumnElement[bool] = written.ilike(f"%{word}%")
        if not word.isascii():  # JSON may write it with escapes
            has_letters = or_(has_letters, func.strpos(written, "\\u") > 0)
        return and_(has_letters, found)


class JsonCondition(Protocol):
    """What a span, an event or a trace without spans may meet."""

    def on_span(self) -> ColumnElement[bool]: ...
    def on_event(self) -> ColumnElement[bool]: ...
    def on_trace(self, trace: type[Trace] = Trace) -> ColumnElement[bool]: ...


def attribute_parameters(name: str, attributes: Any) -> dict[str, Any]:
    """The values of the bind parameters of attributes: two for each."""
    found: dict[str, Any] = {}
    for number, (key, value) in enumerate(attributes.items()):
        found[f"{name}_{number}"] = {key: value}
        found[f"{name}_linked_{number}"] = [{"attributes": {key: value}}]
    return found


def attribute_conditions(given: Given) -> list[JsonCondition]:
    """The conditions of all attributes that are given."""
    found: list[JsonCondition] = []
    while (name := f"attributes_{len(found)}") in given:
        found.append(AttributeCondition(given[name], given[f"attributes_linked_{len(found)}"]))
    return found


def words_condition(given: Given) -> list[JsonCondition]:
    """The condition on words, if a text is given."""
    return [WordsCondition(given["text"])] if "text" in given else []


def on_span_or_events(
    json: JsonCondition, start: Any = None, end: Any = None
) -> ColumnElement[bool]:
    """The condition that a span or one of its events meets a condition on JSON.

    Args:
        start: the span starts at this time or later.
        end: the span starts before this time.
    """
    event = exists().where(
        TraceEvent.trace_id == TraceSpan.trace_id,
        TraceEvent.span_id == TraceSpan.span_id,
        TraceEvent.span_start_time == TraceSpan.start_time,
        TraceEvent.span_start_ns == TraceSpan.start_ns,
        # Implied by the equality. With it the planner cannot replace the lookup of each span's
        # events by a hash of all events there are.
        TraceEvent.span_start_time <= TraceSpan.start_time,
        json.on_event(),
        # Implied by the span's own bounds, but the planner does not carry ranges over.
        *within(TraceEvent.span_start_time, start, end),
    )
    return or_(json.on_span(), event)


# PostgreSQL's parser leaves out tags and entities, and a minus may negate what follows.
_UNCERTAIN: Final = re.compile(r"[<>&]|(?<!\w)-|-(?!\w)|\bor\b", re.IGNORECASE)
_PUNCTUATION: Final = "\"'.,;:?!()"
_SHORTEST: Final = 3


def _required_word(text: str) -> str | None:
    """The longest word that every match of the text must contain letter by letter."""
    if _UNCERTAIN.search(text):
        return None
    words = (word.strip(_PUNCTUATION) for word in text.split())
    return max((word for word in words if _is_plain(word)), key=len, default=None)


def _is_plain(word: str) -> bool:
    """Whether PostgreSQL's parser also reads this as one word: letters, then digits.

    The parser may not know letters that are newer than Unicode 3.2.
    """
    letters = word.rstrip("0123456789")
    return len(word) >= _SHORTEST and all(
        unicodedata.ucd_3_2_0.category(letter).startswith("L") for letter in letters
    )
