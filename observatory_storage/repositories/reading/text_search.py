"""Text searches: words as in a web search, and literal substrings.

PostgreSQL's ``websearch_to_tsquery`` reads words, phrases, ``or`` and ``-not``, but no prefixes.
Therefore each word that ends with ``*`` is passed to it as a placeholder, which is then replaced by
the query for the prefix.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any, Final

from sqlalchemy import ColumnElement, cast, func, literal
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import TSQUERY

from observatory_storage.errors import ValidationError

__all__ = ["has_words", "matches", "substring_pattern", "text_query"]

_WORDS: Final = re.compile(r'[^\s"]+')
_MOST_PREFIXES: Final = 20
_CONFIGURATION: Final = "'simple'::regconfig"


def has_words(vector: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """The condition that a tsvector matches a search text; see `text_query`."""
    return vector.bool_op("@@")(text_query(text))


def text_query(text: str) -> ColumnElement[Any]:
    """The tsquery of a text in web search syntax: all words, ``"a phrase"``, ``or``, ``-not``.

    A word that ends with ``*`` matches all words with this prefix. All other text is literal.

    Raises:
        ValidationError: more than twenty words end with ``*``.
    """
    names: dict[str, str] = {}
    unused = (name for n in count() if (name := f"prefix{n}") not in text.lower())

    def renamed(match: re.Match[str]) -> str:
        word = match[0].lstrip("-")
        beginning = word[:-1]
        if not word.endswith("*") or "*" in beginning or not any(map(str.isalnum, beginning)):
            return match[0]
        if beginning not in names:
            names[beginning] = next(unused)
        return match[0].removesuffix(word) + names[beginning]

    renamed_text = _WORDS.sub(renamed, text)
    if len(names) > _MOST_PREFIXES:
        raise ValidationError("text", text, f"must have at most {_MOST_PREFIXES} words with *")
    query: ColumnElement[Any] = func.websearch_to_tsquery(sql(_CONFIGURATION), renamed_text)
    for beginning, name in names.items():
        target = func.plainto_tsquery(sql(_CONFIGURATION), name)
        query = func.ts_rewrite(query, target, _prefix_query(beginning))
    return query


def substring_pattern(value: str) -> str:
    """The LIKE pattern of texts that contain the value literally."""
    escaped = re.sub(r"([\\%_])", r"\\\1", value)
    return f"%{escaped}%"


def matches(column: Any, pattern: Any) -> ColumnElement[bool]:
    """The condition that a text matches a pattern, ignoring case."""
    matched: ColumnElement[bool] = column.ilike(pattern, escape="\\")
    return matched


def _prefix_query(beginning: str) -> ColumnElement[Any]:
    """The tsquery for words with a prefix. The parts of ``foo-bar`` must follow each other."""
    quoted = "'" + re.sub(r"(['\\])", r"\1\1", beginning) + "':*"
    parsed = func.to_tsquery(sql(_CONFIGURATION), quoted)
    if beginning.isalnum():
        return parsed
    # PostgreSQL parses a whole address, path or version as one word, but may parse its beginning
    # differently.
    return parsed.bool_op("||")(cast(func.lower(literal(quoted)), TSQUERY))
