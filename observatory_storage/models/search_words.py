r"""Splits text into words, in the same way for a full-text index and for a search.

PostgreSQL's parser may read an address, a path or a version as one word, depending on the text
around it. It leaves out words in angle brackets, and it reads a run of Chinese, Japanese or Thai as
one word. Therefore the characters that cause this are replaced by blanks, and each character of a
script without blanks between words becomes a word. A part of a text is then split into the same
words as the whole text, so a search for it finds the index entries.
"""

from __future__ import annotations

import re
from functools import reduce
from typing import Any, Final

from sqlalchemy import ColumnElement, TextClause, func, text

__all__ = ["APART", "matches", "quoted", "separate", "substring_pattern", "words_of"]

# The characters that make the parser read more than letters and digits as one word, and the
# typographic apostrophe.
_JOINTS: Final = "<&./-+@~\u2019"
# Each of these characters is a word: punctuation and symbols beyond ASCII, Thai, Lao, Burmese,
# Hangul, Khmer, Chinese and Japanese, wide forms, emoji. The pattern means the same in PostgreSQL
# and in Python.
APART: Final = (
    r"[\u00A0-\u00A9\u00AB-\u00B4\u00B6-\u00B9\u00BB-\u00BF\u00D7\u00F7\u0E00-\u0EFF\u1000-\u11FF"
    r"\u1780-\u17FF\u2000-\u2BFF\u2E00-\u9FFF\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF\uFE30-\uFE4F"
    r"\uFF00-\uFFEF\U0001F000-\U0001FAFF\U00020000-\U0003FFFF]"
)
_APART: Final = re.compile(APART)
_BLANKS: Final = str.maketrans(dict.fromkeys(_JOINTS, " "))


def words_of(given: ColumnElement[Any]) -> ColumnElement[Any]:
    """The tsvector of a text: an immutable expression, which an index is built on."""
    # Calls of `replace` take a fifth of the time of `translate`.
    spaced = reduce(lambda made, c: func.replace(made, quoted(c), quoted(" ")), _JOINTS, given)
    apart = func.regexp_replace(spaced, quoted(f"({APART})"), quoted(r" \1 "), quoted("g"))
    return func.to_tsvector(text("'simple'::regconfig"), apart)


def separate(given: str) -> str:
    """The text of a search, with blanks in the same places as `words_of` puts them."""
    return _APART.sub(r" \g<0> ", given.translate(_BLANKS))


def quoted(constant: str) -> TextClause:
    """A constant as SQL text: with a parameter, PostgreSQL would not match it to an index."""
    return text("'" + constant.replace("'", "''").replace(":", r"\:") + "'")


def substring_pattern(value: str) -> str:
    """The LIKE pattern of texts that contain the value literally."""
    escaped = re.sub(r"([\\%_])", r"\\\1", value)
    return f"%{escaped}%"


def matches(column: Any, pattern: Any) -> ColumnElement[bool]:
    """The condition that a text matches a pattern, ignoring case."""
    matched: ColumnElement[bool] = column.ilike(pattern, escape="\\")
    return matched
