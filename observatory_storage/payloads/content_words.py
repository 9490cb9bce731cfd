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

__all__ = ["MOST_CHARACTERS", "is_content", "runs_of", "words_of_texts", "words_of_values"]

MOST_CHARACTERS: Final = 40
"""Of a longer word, the beginning counts."""

_NAMES: Final = (*PROMPTS, *COMPLETIONS, *PROMPTS_OF_EVENTS, *COMPLETIONS_OF_EVENTS)
# Stand for two backslashes, and for the backslashes and the u of an escape. JSON text has no such
# bytes.
_SLASH: Final = b"\x01"
_ESCAPED: Final = b"\x02"
# Of ASCII, letters are in lower case, digits and _ESCAPED stay, and all else is a blank.
_TO_WORDS: Final = bytes(
    code + 32 if chr(code).isupper() else code if chr(code).isalnum() or code in _ESCAPED else 32
    for code in range(128)
) + bytes(range(128, 256))
_RUN: Final = re.compile(r"[^\W_]+")
_BEGINNINGS: Final = (
    re.compile(rb"[A-Za-z0-9]+"),
    re.compile(rb"[A-Za-z0-9\x80-\xff]+"),
)
_LETTERS: Final = (b"b", b"f", b"n", b"r", b"t")
_SURROGATE: Final = b"\xed"  # begins it in UTF-8, and other characters too
_HEX: Final = re.compile(rb"[0-9a-f]{4}")
# jsonb writes numbers without an exponent.
_EXPONENT: Final = re.compile(rb"-?\d+(?:\.\d+)?[eE][+-]?\d{1,3}(?![\d.])")
# PostgreSQL's parser divides a number with an exponent from letters that follow.
_NUMBER: Final = re.compile(r"(?<![^\W_])([0-9]+[eE][0-9]+)(?=[^\W0-9_])")
_TO_SHAPES: Final = bytes.maketrans(b"123456789E", b"000000000e")
_AN_EXPONENT: Final = b"0e"
# Beside what case folding makes equal: the letters i of Turkish.
_FOLDED: Final = str.maketrans({"\u0130": "i", "\u0131": "i"})
_KELVIN: Final = "\u212a"


@lru_cache(maxsize=4_096)
def is_content(key: str) -> bool:
    """Whether an attribute of this name may be a prompt or a completion."""
    return is_one_of(key, _NAMES)


def words_of_values(rows: Iterable[Mapping[str, bytes]]) -> set[bytes]:
    """The words of the prompts and completions of rows, in UTF-8.

    Args:
        rows: the JSON text of their attributes.
    """
    return words_of_texts(
        value for values in rows for key, value in values.items() if is_content(key)
    )


def words_of_texts(values: Iterable[bytes]) -> set[bytes]:
    """The words of JSON texts, in UTF-8."""
    found: set[bytes] = set()
    parts: set[bytes] = set()
    numbers: list[str] = []
    is_ascii, has_exponent = True, False
    for value in values:
        # A conversation repeats its messages. No word and no number goes beyond a brace.
        new = set(value.split(b"}")).difference(parts)
        parts |= new
        given = b"}".join(new)
        text = _plain(given)
        found.update(text.split())
        is_ascii = is_ascii and text.isascii()
        if _AN_EXPONENT in given.translate(_TO_SHAPES):
            has_exponent = True
            numbers += _numbers(given)
    if not is_ascii:
        beyond = {word for word in found if not word.isascii()}
        found -= beyond
        found.update(map(str.encode, _runs(b" ".join(beyond).decode())))
    if has_exponent:
        numbers += _runs(b" ".join(word for word in found if word[:1].isdigit()).decode())
        found.update(map(str.encode, numbers))
    if max(map(len, found), default=0) > MOST_CHARACTERS:
        return {_beginning(word) for word in found}
    return found


def runs_of(word: str) -> list[str]:
    """The runs of letters and digits of a word of a search: `words_of_values` has each of them."""
    return [run[:MOST_CHARACTERS] for run in _runs(word)]


def _beginning(word: bytes) -> bytes:
    return word if len(word) <= MOST_CHARACTERS else word.decode()[:MOST_CHARACTERS].encode()


def _plain(value: bytes) -> bytes:
    """The words of JSON text, with all readings of its escapes, divided by blanks."""
    text = _without_backslashes(value) if b"\\" in value else value
    text = text.translate(_TO_WORDS)
    return _unescaped(text) if _ESCAPED in text else text


def _without_backslashes(text: bytes) -> bytes:
    text = text.replace(b"\\\\", _SLASH)
    if _SLASH in text:
        text = _without_slashes(text)
    if b"\\" not in text:
        return text
    # What is left is escapes of this JSON, not of JSON within it.
    first, *rest = text.replace(b"\\u", _ESCAPED).split(b"\\")
    return b" ".join([first, *[part[1:] for part in rest]])


def _without_slashes(text: bytes) -> bytes:
    """The text with both readings of each letter after two backslashes or more."""
    first, *rest = text.split(_SLASH)
    found = [first]
    for part in rest:
        after = part.removeprefix(b"\\")
        if after.startswith(b"u"):
            found += (_ESCAPED, after[1:])
        elif after.startswith(_LETTERS):
            # It depends on the server's locale whether letters beyond ASCII belong to the word.
            for pattern in _BEGINNINGS:
                found += (b" ", pattern.match(after)[0])  # type: ignore[index]
            found += (b" ", after[1:])
        elif after:
            found += (b" ", after)
    return b"".join(found)


def _unescaped(text: bytes) -> bytes:
    """The text with the characters of its escapes."""
    first, *rest = text.split(_ESCAPED)
    found = [first]
    for part in rest:
        found += (_character(part[:4]), part[4:])
    joined = b"".join(found)
    if _SURROGATE not in joined:
        return joined
    units = joined.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
    return units.decode("utf-16", "replace").encode()


@lru_cache(maxsize=4_096)
def _character(digits: bytes) -> bytes:
    if not _HEX.fullmatch(digits):
        return b" u" + digits
    code = int(digits, 16)
    return b" " if code < 128 else chr(code).encode("utf-8", "surrogatepass")


def _runs(text: str) -> list[str]:
    text = _NUMBER.sub(r"\1 ", text)
    found = _RUN.findall(separate(text.translate(_FOLDED).casefold()))
    if _KELVIN in text:  # which is a word of its own, unlike the letter that it is folded to
        found += _RUN.findall(separate(text).translate(_FOLDED).casefold())
    return found


def _numbers(value: bytes) -> list[str]:
    """The runs of numbers as jsonb writes them, if they have an exponent."""
    found = (format(Decimal(number.decode()), "f") for number in _EXPONENT.findall(value))
    return [run for each in found for run in _runs(each)]
