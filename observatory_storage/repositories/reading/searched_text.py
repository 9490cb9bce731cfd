"""JSON text as it is given to PostgreSQL to search: without what no search for words reaches."""

from __future__ import annotations

from typing import Any, Final

from observatory_storage import jsonb
from observatory_storage.llm.content_search import SEARCHED_CHARACTERS

__all__ = ["LONG", "without_middles"]

# What is left of a text at each end.
_LEFT: Final = SEARCHED_CHARACTERS + 100
LONG: Final = 3 * _LEFT
"""The size from which on a value is looked at for long texts."""


def without_middles(value: bytes) -> bytes:
    """JSON text without the middle of long texts in it.

    Words are found in the first and the last `SEARCHED_CHARACTERS` of a row, of which more are
    left at both ends. PostgreSQL would parse all of an image.
    """
    return value if len(value) <= LONG else jsonb.dumps(_cut(jsonb.loads(value)))


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 2 * _LEFT else value[:_LEFT] + value[-_LEFT:]
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value
