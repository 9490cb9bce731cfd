r"""The words of prompts and completions, as candidates for a text search.

A search is decided by PostgreSQL, by the same expressions as that of values which stand in rows
(see `llm.content_search`). Words only rule out what cannot match, so there may be more words than
PostgreSQL finds, but none less. Here, a word is a run of letters and digits, without regard to
case. PostgreSQL may take more characters for a part of a word, such as combining marks, and it
depends on the server's locale which. Therefore a word of a search is divided in the same way, and
all of its runs are required.

In JSON within JSON strings, a letter after backslashes may be an escape or the beginning of a word,
such as ``\n`` and ``\nabla``. Both readings are words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final

from observatory_storage.llm.content_names import (
    COMPLETIONS,
    COMPLETIONS_OF_EVENTS,
    PROMPTS,
    PROMPTS_OF_EVENTS,
    is_one_of,
)
from observatory_storage.models.search_words import separate

__all__ = ["MOST_CHARACTERS", "is_content", "runs_of", "words_of_values"]

MOST_CHARACTERS: Final = 40
"""Of a longer word, the beginning counts."""

_NAMES: Final = (*PROMPTS, *COMPLETIONS, *PROMPTS_OF_EVENTS, *COMPLETIONS_OF_EVENTS)
# ASCII letters in lower case and digits stay, all else is a blank.
_BLANKS: Final = bytes(
    code + 32 if chr(code).isupper() else code if chr(code).isalnum() else 32 for code in range(128)
) + bytes([32] * 128)
_RUN: Final = re.compile(r"[^\W_]+")
_ESCAPED: Final = re.compile(r"\\+u([0-9a-fA-F]{4})")
# A single backslash begins no word.
_SINGLE: Final = re.compile(rb'(?<!\\)\\["bfnrt]')
_SINGLE_ESCAPES: Final = (rb"\n", rb"\"", rb"\t", rb"\r", rb"\b", rb"\f")
_ESCAPE: Final = re.compile(r"\\+[bfnrt]?")
# It depends on the server's locale whether letters beyond ASCII belong to a word after backslashes.
_BEGINNINGS: Final = (
    re.compile(r"\\{2,}([bfnrt][A-Za-z0-9]+)"),
    re.compile(r"\\{2,}([bfnrt][^\W_]+)"),
)
_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# jsonb writes numbers without an exponent.
_HAS_EXPONENT: Final = re.compile(rb"[0-9][eE][+-]?[0-9]")
_EXPONENT: Final = re.compile(rb"-?\d+(?:\.\d+)?[eE][+-]?\d{1,3}(?![\d.])")
# PostgreSQL's parser divides a number with an exponent from letters that follow.
_NUMBER: Final = re.compile(r"(?<![^\W_])([0-9]+[eE][0-9]+)(?=[^\W0-9_])")
# Beside what case folding makes equal: the letters i of Turkish.
_FOLDED: Final = str.maketrans({"\u0130": "i", "\u0131": "i"})


@lru_cache(maxsize=4_096)
def is_content(key: str) -> bool:
    """Whether an attribute of this name may be a prompt or a completion."""
    return is_one_of(key, _NAMES)


def words_of_values(values: Mapping[str, bytes]) -> set[str]:
    """The words of attributes that may be prompts or completions.

    Args:
        values: the JSON text of the attributes of a row.
    """
    found: set[str] = set()
    for key, value in values.items():
        if is_content(key):
            found |= _words_of_value(value)
    return found


def runs_of(word: str) -> list[str]:
    """The runs of letters and digits of a word of a search, each as `words_of_values` has it."""
    return [run[:MOST_CHARACTERS] for run in _runs(word)]


def _words_of_value(value: bytes) -> set[str]:
    text = value
    if b"\\\\" in text:
        text = _SINGLE.sub(b" ", text)
    elif b"\\" in text:
        for escape in _SINGLE_ESCAPES:
            text = text.replace(escape, b" ")
    if text.isascii() and b"\\" not in text:
        words = text.translate(_BLANKS).decode("ascii").split()
    else:
        words = [*_runs_of_json(text.decode())]
    if _HAS_EXPONENT.search(value):
        words += _numbers(value)
        words += _runs(" ".join(words))
    found = set(words)
    if max(map(len, found), default=0) > MOST_CHARACTERS:
        return {word[:MOST_CHARACTERS] for word in found}
    return found


def _runs_of_json(text: str) -> Iterable[str]:
    """The runs of JSON text, with all readings of its escapes."""
    if "\\" not in text:
        return _runs(text)
    decoded = _ESCAPED.sub(_character, text)
    if "\\u" in text:
        decoded = _SURROGATES.sub(_joined, decoded)
    readings = [decoded.replace("\\", " "), _ESCAPE.sub(" ", decoded)]
    if decoded != text:
        readings += (word for pattern in _BEGINNINGS for word in pattern.findall(text))
    return _runs(" ".join(readings))


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return " " if code < 128 else chr(code)


def _joined(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _runs(text: str) -> list[str]:
    text = _NUMBER.sub(r"\1 ", text)
    if text.isascii():
        return text.encode().translate(_BLANKS).decode("ascii").split()
    return _RUN.findall(separate(text.translate(_FOLDED).casefold()))


def _numbers(value: bytes) -> list[str]:
    """The runs of numbers as jsonb writes them, if they have an exponent."""
    found = (format(Decimal(number.decode()), "f") for number in _EXPONENT.findall(value))
    return [run for each in found for run in _runs(each)]
