"""Conditions on the prompts and completions of a row: words, or a substring."""

from __future__ import annotations

from functools import partial

from sqlalchemy import ColumnElement, and_

from observatory_storage.llm import content_search
from observatory_storage.llm.content_search import Content
from observatory_storage.models.search_words import matches, substring_pattern
from observatory_storage.repositories.reading.text_search import TextSearch, longest_run

__all__ = ["has_substring", "has_words"]

# Shorter words rule out too little.
_SHORTEST = 3


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
    return _narrowed(content, longest_run(value), content_search.contains(content, value))


def _narrowed(
    content: Content, required: str | None, found: ColumnElement[bool]
) -> ColumnElement[bool]:
    """The condition with a cheaper one that it implies.

    Args:
        required: ASCII letters and digits that all matching content has, in any case.
    """
    if required is None or len(required) < _SHORTEST:
        return found
    # This helps rows without an index: searching for letters costs a twentieth of parsing.
    return and_(matches(content.row, substring_pattern(required)), found)
