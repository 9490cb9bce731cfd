"""Searches of prompts and completions for a substring."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import reduce
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    Text,
    and_,
    any_,
    cast,
    column,
    exists,
    func,
    literal,
    or_,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH

from observatory_storage.by_layout import ByLayout
from observatory_storage.llm.content_search import Content, cases_of, in_json
from observatory_storage.models.search_words import matches, quoted, substring_pattern

__all__ = ["contains"]

_SILENTLY: Final = (text("'{}'"), text("true"))
# The number of levels of JSON within JSON strings that are searched for a substring.
_JSON_IN_JSON: Final = 2
_STRINGS: Final = '$.** ? (@.type() == "string")'
_NUMBERS: Final = '$.** ? (@.type() == "number")'
_STRINGS_AND_NUMBERS: Final = '$.** ? (@.type() == "string" || @.type() == "number")'
# The characters of a number in JSON, as PostgreSQL writes it.
_OF_NUMBERS: Final = re.compile("[-.0-9]+")
# What stands between the strings of an array; "" stands everywhere.
_BETWEEN: Final = re.compile(r"[, \[\]]*")
# The beginning of what may stand in an escape.
_ESCAPE: Final = re.compile(r"[\\bfnrtu0-9a-f]", re.IGNORECASE)
# The escapes of two characters that PostgreSQL writes, and a character for each, of those that have
# no meaning. The backslash is first, so that none begins with the end of another.
_SHORT_ESCAPES: Final = tuple(
    (escape, chr(0xE000 + index))
    for index, escape in enumerate((r"\\", r"\"", r"\n", r"\t", r"\r", r"\b", r"\f"))
)
# So many characters of a value tell where it begins. Longer expressions are refused.
_CONFIRMED: Final = 200


def contains(content: Content, value: str) -> ColumnElement[bool]:
    """Whether a prompt or a completion has a substring, in upper or lower case.

    If the prompt is a string of JSON, the values in that JSON are searched.
    """
    written = {value}
    escaped = {value, *cases_of(value)}
    for _ in range(_JSON_IN_JSON):
        escaped = in_json(escaped)
        written |= escaped
    patterns = [substring_pattern(one) for one in sorted(written)]
    found = or_(*(_has_one(place, path, patterns) for place, path in content.places))
    return ByLayout(found, _has_in_json(content, sorted(written)))


def _has_one(
    place: SQLColumnExpression[Any], path: ColumnElement[Any], patterns: Sequence[str]
) -> ColumnElement[bool]:
    """Whether a string or number at any depth of the values of a path matches one of patterns."""
    found = func.jsonb_path_query(place, path, *_SILENTLY)
    values = found.table_valued(column("value", JSONB)).render_derived("content")
    path_of_texts = quoted(_STRINGS_AND_NUMBERS)
    each = func.jsonb_path_query(values.c.value, path_of_texts, *_SILENTLY)
    texts = each.table_valued(column("value", JSONB)).render_derived("texts").lateral()
    shown = texts.c.value.op("#>>", return_type=Text())(text("'{}'"))
    matching = or_(*(matches(shown, one) for one in patterns))
    return exists().select_from(values.join(texts, true())).where(matching)


def _has_in_json(content: Content, values: Sequence[str]) -> ColumnElement[bool]:
    """Whether a string or number of the content contains one of the values, without a subquery.

    Citus does not plan functions in FROM within conditions on other tables. Therefore the strings
    are searched as the text of one JSON array. A value that might begin within an escape there is
    searched in a text without escapes of two characters. What escapes of six have, or the text
    between strings, is confirmed by a regular expression, which takes long, and does not fold all
    letters as LIKE does.
    """
    written = {one: json.dumps(one, ensure_ascii=False)[1:-1] for one in values}
    between = [one for one in values if _BETWEEN.fullmatch(written[one])]
    escaped = [one for one in values if one not in between and _ESCAPE.match(written[one])]
    clear = [one for one in values if one not in between and one not in escaped]
    digits = [one for one in values if _OF_NUMBERS.fullmatch(one)]
    conditions = []
    for place, path in content.places:
        found = func.jsonb_path_query_array(place, path, *_SILENTLY)
        strings = func.jsonb_path_query_array(found, quoted(_STRINGS), *_SILENTLY)
        text_of: ColumnElement[Any] = cast(strings, Text)
        if clear:
            conditions.append(_matches_any(text_of, [written[one] for one in clear]))
        if escaped:
            plain = reduce(_replaced, _SHORT_ESCAPES, text_of)
            patterns = [reduce(_replace, _SHORT_ESCAPES, written[one]) for one in escaped]
            is_sure = or_(
                text_of.not_like(r"%\\u00%", escape="\\"), _begins_in_one(strings, escaped)
            )
            conditions.append(and_(_matches_any(plain, patterns), is_sure))
        if between:
            seems = _matches_any(text_of, [written[one] for one in between])
            conditions.append(and_(seems, _begins_in_one(strings, between)))
        if digits:
            numbers = func.jsonb_path_query_array(found, quoted(_NUMBERS), *_SILENTLY)
            conditions.append(_matches_any(cast(numbers, Text), digits))
    return or_(*conditions)


def _replaced(given: ColumnElement[Any], escape: tuple[str, str]) -> ColumnElement[Any]:
    return func.replace(given, *map(quoted, escape))


def _replace(given: str, escape: tuple[str, str]) -> str:
    return given.replace(*escape)


def _matches_any(given: ColumnElement[Any], substrings: Sequence[str]) -> ColumnElement[bool]:
    patterns = [substring_pattern(one) for one in substrings]
    found: ColumnElement[bool] = given.op("~~*", is_comparison=True)(
        any_(literal(patterns, ARRAY(Text)))
    )
    return found


def _begins_in_one(strings: ColumnElement[Any], values: Sequence[str]) -> ColumnElement[bool]:
    """Whether one of the strings has the beginning of one of the values."""
    beginnings = {json.dumps(one[:_CONFIRMED], ensure_ascii=False) for one in values}
    # The flags: ignore case, and take each character literally.
    each = (f'@ like_regex {one} flag "iq"' for one in sorted(beginnings))
    path = cast(f"$[*] ? ({' || '.join(each)})", JSONPATH)
    return func.jsonb_path_exists(strings, path, *_SILENTLY)
