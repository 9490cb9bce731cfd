r"""Searches of prompts and completions: their text, and the tsvector expression.

Instrumentations report prompts and completions in attributes of the span, in its events, or in log
records that name it, as text, as structures, or as JSON in text, whole or flattened into many
attributes (``llm.input_messages.0.message.content``).

The expression must not fail for any value: an index on it would refuse the row. Hence the limits (a
tsvector holds at most 1 MB), the silent path, and no parsing of JSON in text, only of its escapes:
``caf\u00e9`` is found as "café". A backslash with b, f, n, r or t is white space in JSON. In text
that is not JSON it begins a word, such as ``\frac``. The two cannot be told apart, so both words
(``frac`` and ``rac``) are indexed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    Text,
    and_,
    case,
    cast,
    func,
    or_,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH

from observatory_storage.llm.content_names import (
    COMPLETIONS,
    COMPLETIONS_OF_EVENTS,
    MESSAGE_EVENTS,
    PROMPTS,
    PROMPTS_OF_EVENTS,
    values_path,
)
from observatory_storage.models.search_words import matches, quoted, substring_pattern, words_of

__all__ = [
    "SEARCHED_CHARACTERS",
    "Content",
    "cases_of",
    "content_of_attributes",
    "content_of_event",
    "content_of_log",
    "content_vector",
    "has_literally",
    "in_json",
    "is_message_log",
]

SEARCHED_CHARACTERS: Final = 50_000
"""The limit for prompts and for completions, so that a long prompt does not hide its completion.

The end of a prompt is kept, since the newest message of a conversation is there."""
# In nested JSON strings, an escape has several backslashes.
_RUN: Final = r"\\+u"
# A word after two backslashes. A single backslash stands for white space.
_WORD: Final = r"\\{2,}([bfnrt])([[:alnum:]]+)"
# Two surrogates, which together are one character, such as an emoji.
_HIGH: Final = r"u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"u[dD][c-fC-F][0-9a-fA-F]{2}"
# Backslashes, and what they escape unless it is a character beyond ASCII: `unistr` refuses every
# other escape, also one of two surrogates alone.
_ESCAPES: Final = (
    r"\\+(?!u(?!00[0-7]|[dD][89a-fA-F])[0-9a-fA-F]{4}"
    rf"|{_HIGH}\\{_LOW}|(?<=\\{_HIGH}\\){_LOW})"
    r"(u[0-9a-fA-F]{4}|[bfnrt])?"
)


_PROMPTS: Final = values_path(PROMPTS)
_COMPLETIONS: Final = values_path(COMPLETIONS)
_PROMPTS_OF_EVENTS: Final = values_path((*PROMPTS, *PROMPTS_OF_EVENTS))
_COMPLETIONS_OF_EVENTS: Final = values_path((*COMPLETIONS, *COMPLETIONS_OF_EVENTS))
_EVERY_VALUE: Final = "$.*"
_WHOLE: Final = "$"
_NO_VALUE: Final = "$ ? (1 == 2)"
_OF_EVENTS: Final = (*PROMPTS_OF_EVENTS, *COMPLETIONS_OF_EVENTS)
_IS_MESSAGE: Final = f"^({'|'.join(MESSAGE_EVENTS)})".replace(".", "[.]")
_SILENTLY: Final = (text("'{}'"), text("true"))


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The prompts and completions of a row, as expressions.

    Attributes:
        text: all of them, as JSON in text, each side up to a limit.
        places: the JSON in which they stand, each with the paths of their values.
        row: the text of the whole columns, which costs less to read than `text`.
    """

    text: ColumnElement[str]
    places: Sequence[tuple[SQLColumnExpression[Any], ColumnElement[Any]]]
    row: ColumnElement[str]


@lru_cache(maxsize=32)  # an alias of a statement has attributes of its own
def content_of_attributes(attributes: SQLColumnExpression[Any]) -> Content:
    """The prompts and completions among the attributes of a span or a trace."""
    paths = _path(_PROMPTS), _path(_COMPLETIONS)
    return Content(_sides(attributes, *paths), _each(attributes, paths), cast(attributes, Text))


@lru_cache(maxsize=32)
def content_of_event(
    name: SQLColumnExpression[Any], attributes: SQLColumnExpression[Any]
) -> Content:
    """The prompts and completions among the attributes of a span's event."""
    is_message = name.regexp_match(quoted(_IS_MESSAGE))
    ambiguous = cast(quoted(f"{{{','.join(_OF_EVENTS)}}}"), ARRAY(Text))
    own = case((is_message, attributes), else_=attributes.op("-")(ambiguous))
    paths = _path(_PROMPTS_OF_EVENTS), _path(_COMPLETIONS_OF_EVENTS)
    return Content(_sides(own, *paths), _each(own, paths), cast(attributes, Text))


def content_of_log(record: Any) -> Content:
    """What a search finds in a log record beside a text body; NULL if there is nothing.

    In a message event, these are prompts and completions. In another event, they are all
    attributes. The body of an event is included, so that a search may have words of both.

    Args:
        record: `LogRecord`, an alias of it, or the columns of its table.
    """
    return _content_of_log(record.event_name, record.attributes, record.body, record.body_json)


@lru_cache(maxsize=32)
def _content_of_log(event_name: Any, attributes: Any, body: Any, body_json: Any) -> Content:
    is_event = _is_event(event_name, attributes)
    is_message = _is_message(event_name, attributes, body)
    paths = (
        case((is_message, _path(_PROMPTS_OF_EVENTS)), else_=_path(_EVERY_VALUE)),
        case((is_message, _path(_COMPLETIONS_OF_EVENTS)), else_=_path(_NO_VALUE)),
    )
    structured = cast(body_json, Text)
    whole_body = func.coalesce(structured, body, quoted(""))
    found = case(
        (is_event, _sides(attributes, *paths, whole_body)),
        else_=func.left(structured, text(str(SEARCHED_CHARACTERS))),
    )
    own = case((is_event, attributes))
    row = cast(attributes, Text).concat(whole_body)
    bodies = (body_json, case((is_event, func.to_jsonb(body))))
    places = [*((each, _path(_WHOLE)) for each in bodies), *_each(own, paths)]
    return Content(found, places, row)


def is_message_log(record: Any) -> ColumnElement[bool]:
    """Whether a log record is an event that reports messages."""
    event_name, attributes = record.event_name, record.attributes
    return and_(_is_event(event_name, attributes), _is_message(event_name, attributes, record.body))


def _is_event(event_name: Any, attributes: Any) -> ColumnElement[bool]:
    # Older SDKs give the name of an event as an attribute.
    return or_(event_name.is_not(None), attributes.op("?")(quoted("event.name")))


def _is_message(event_name: Any, attributes: Any, body: Any) -> ColumnElement[bool]:
    """Whether an event reports messages."""
    named = func.coalesce(event_name, attributes.op("->>")(quoted("event.name")), quoted(""))
    # Claude Code's `event.name` has no prefix, but its body is the whole name.
    places = (named, func.coalesce(body, quoted("")))
    return or_(*(place.collate("C").regexp_match(quoted(_IS_MESSAGE)) for place in places))


def content_vector(content: Content, *, words_twice: bool = True) -> ColumnElement[Any]:
    """The words of prompts and completions: an immutable expression.

    An index is built on it, and a search must repeat it.

    Args:
        words_twice: include a word after a backslash both with and without its first letter.
            Adjacent words may then have another word between them.
    """
    return _vector(content.text, words_twice)


@lru_cache(maxsize=64)
def _vector(content: ColumnElement[str], words_twice: bool) -> ColumnElement[Any]:
    both = content
    twice = ((_WORD, r" \1\2 \2"),) if words_twice else ()
    for pattern, instead in (*twice, (_RUN, r"\\u"), (_ESCAPES, " ")):
        both = func.regexp_replace(both, quoted(pattern), quoted(instead), quoted("g"))
    return words_of(func.unistr(both))


def has_literally(content: Content, value: str) -> ColumnElement[bool]:
    """Whether the searched text contains a value, ignoring backslashes.

    Nested JSON strings have any number of backslashes, so backslashes are not significant.
    """
    plain = func.replace(content.text, quoted("\\"), quoted(""))
    written = {one.replace("\\", "") for one in in_json({value, *cases_of(value)})}
    return or_(*(matches(plain, substring_pattern(one)) for one in sorted(written)))


def cases_of(value: str) -> tuple[str, str]:
    """The value in lower and in upper case."""
    # An escape such as \\u00e9 has no other case: it is searched for in lower and in upper case.
    return value.lower(), value.upper()


def in_json(values: set[str]) -> set[str]:
    """The values as they are written within JSON strings, with escapes beyond ASCII or without."""
    choices = product(values, (False, True))
    return {json.dumps(one, ensure_ascii=ascii_only)[1:-1] for one, ascii_only in choices}


def _path(path: str) -> ColumnElement[Any]:
    return cast(quoted(path), JSONPATH)


def _each(
    attributes: SQLColumnExpression[Any], paths: Sequence[ColumnElement[Any]]
) -> list[tuple[SQLColumnExpression[Any], ColumnElement[Any]]]:
    return [(attributes, path) for path in paths]


def _sides(
    attributes: SQLColumnExpression[Any],
    asked: ColumnElement[Any],
    answered: ColumnElement[Any],
    more_asked: ColumnElement[str] | None = None,
) -> ColumnElement[str]:
    """The text of two paths, and of a text that belongs to the first, each up to the limit."""

    def values(path: ColumnElement[Any]) -> ColumnElement[str]:
        return cast(func.jsonb_path_query_array(attributes, path, *_SILENTLY), Text)

    first, last = values(asked), values(answered)
    if more_asked is not None:
        first = first.concat(text("' '")).concat(more_asked)
    limit = text(str(SEARCHED_CHARACTERS))
    return func.right(first, limit).concat(text("' '")).concat(func.left(last, limit))
