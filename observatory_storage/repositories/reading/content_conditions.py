"""Conditions on the prompts and completions of a row: words, or a substring."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, type_coerce

from observatory_storage.llm import content_search
from observatory_storage.llm.content_search import Content
from observatory_storage.llm.content_substrings import contains
from observatory_storage.models.search_words import matches, substring_pattern
from observatory_storage.repositories.reading.text_search import (
    TextSearch,
    has_plain_words,
    longest_run,
)

__all__ = ["contains_words", "has_substring", "has_words", "words_parameters"]

# Shorter words rule out too little.
_SHORTEST = 3


def words_parameters(name: str, value: str) -> dict[str, Any]:
    """The values of the bind parameters of a search for words.

    If all are plain words, the condition does not depend on them, and they are bind parameters.
    Otherwise the text itself is passed to the condition.
    """
    search = TextSearch(value)
    words, required = search.plain_query(), search.required_word()
    if words is None:
        return {name: value}
    letters = {} if _is_short(required) else {"letters": substring_pattern(required or "")}
    return {"words": words, **letters}


def contains_words(content: Content, words: Any, letters: Any) -> ColumnElement[bool]:
    """The condition that the content has all words.

    Args:
        words, letters: the bind parameters of `words_parameters`; `letters` may be None.
    """
    found = has_plain_words(content_search.content_vector(content), words)
    if letters is None:
        return found
    return and_(matches(content.row, type_coerce(letters, Text)), found)


def has_words(content: Content, search: TextSearch) -> ColumnElement[bool]:
    """The condition that a search finds its words in the content."""
    found = search.condition(
        content_search.content_vector(content),
        partial(content_search.has_literally, content),
        content_search.content_vector(content, words_twice=False),
    )
    return _narrowed(content, search.required_word(), found)


def has_substring(content: Content, value: str) -> ColumnElement[bool]:
    """The condition that a value of the content contains a text, in upper or lower case."""
    return _narrowed(content, longest_run(value), contains(content, value))


def _narrowed(
    content: Content, required: str | None, found: ColumnElement[bool]
) -> ColumnElement[bool]:
    """The condition with a cheaper one that it implies.

    Args:
        required: ASCII letters and digits that all matching content has, in any case.
    """
    if required is None or _is_short(required):
        return found
    # This helps rows without an index: searching for letters costs a twentieth of parsing.
    return and_(matches(content.row, substring_pattern(required)), found)


def _is_short(required: str | None) -> bool:
    return required is None or len(required) < _SHORTEST
