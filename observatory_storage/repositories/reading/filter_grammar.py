"""The terms of filters that are written as text: fields with values, and words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from observatory_storage.errors import ValidationError

__all__ = ["ATTRIBUTE", "Term", "Value", "Word", "mistake", "terms_of", "unquoted"]

ATTRIBUTE: Final = "attributes."
_FIELD: Final = re.compile(
    r'(?P<minus>-?)(?P<name>attributes\.(?:"(?:[^"\\]|\\.)*"|[^\s:=<>!",]+)|[^\W\d]\w*)'
    r"(?P<operator>:|!=|>=|<=|=|>|<)"
)
_VALUE: Final = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"(?P<star>\*?)|(?P<bare>[^\s,"]+)')
_WORD: Final = re.compile(r'-?"[^"]*"|[^\s"]+')
_ESCAPE: Final = re.compile(r'\\(["\\])')
_SHOWN: Final = 50  # the number of characters shown on each side of a mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value of a term, with its position in the text.

    Attributes:
        is_prefix: whether a star follows it.
    """

    text: str
    start: int
    end: int
    is_quoted: bool
    is_prefix: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A field with its values. The operator is ``:``, ``<``, ``<=``, ``>`` or ``>=``."""

    name: str
    operator: str
    values: tuple[Value, ...]
    is_negated: bool
    start: int
    name_start: int
    name_end: int

    @property
    def end(self) -> int:
        return self.values[-1].end


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a phrase in quotes, to search for."""

    text: str
    start: int
    end: int


def terms_of(text: str) -> list[Term | Word]:
    """The terms of a text.

    Raises:
        ValidationError: a quote is open, or a value or a space is missing.
    """
    found: list[Term | Word] = []
    place = _skipped(text, 0)
    while place < len(text):
        field = _FIELD.match(text, place)
        found.append(_word(text, place) if field is None else _term(text, field))
        end = found[-1].end
        place = _skipped(text, end)
        if place == end < len(text):
            raise mistake(text, end, end + 1, "a space is missing before this")
    for before, one, after in zip([None, *found], found, [*found[1:], None], strict=False):
        is_between = isinstance(before, Word) and isinstance(after, Word)
        if isinstance(one, Word) and one.text.lower() == "or" and not is_between:
            rule = "or stands between two words; several values are written as field:a,b"
            raise mistake(text, one.start, one.end, rule)
    return found


def mistake(text: str, start: int, end: int, rule: str) -> ValidationError:
    """The error for a part of the text. Its message shows the text with the part underlined."""
    begin = max(0, start - _SHOWN)
    shown = re.sub(r"\s", " ", text[begin : start + _SHOWN])
    before, part = shown[: start - begin], shown[start - begin : end - begin]
    marked = f"{rule}\n  {shown}\n  {' ' * _cells(before)}{'^' * max(1, _cells(part))}"
    return ValidationError("filters", text, marked, position=start)


def _cells(text: str) -> int:
    """The width of a text in a terminal: Chinese characters and emoji take two cells."""
    marks = sum(map(bool, map(unicodedata.combining, text)))
    return len(text) - marks + sum(unicodedata.east_asian_width(one) in "FW" for one in text)


def unquoted(text: str) -> str:
    """The text between quotes, without the backslashes that escape quotes and backslashes."""
    return _ESCAPE.sub(r"\1", text)


def _skipped(text: str, place: int) -> int:
    """The index of the next character that is not white space."""
    return len(text) - len(text[place:].lstrip())


def _word(text: str, place: int) -> Word:
    found = _WORD.match(text, place)
    if found is None:
        raise mistake(text, place, len(text), "the quote is not closed")
    return Word(found[0], place, found.end())


def _term(text: str, field: re.Match[str]) -> Term:
    operator = field["operator"]
    return Term(
        name=field["name"],
        operator=":" if operator in {"=", "!="} else operator,
        values=tuple(_values(text, field.end())),
        is_negated=bool(field["minus"]) != (operator == "!="),
        start=field.start(),
        name_start=field.start("name"),
        name_end=field.end("name"),
    )


def _values(text: str, place: int) -> Iterator[Value]:
    while True:
        found = _VALUE.match(text, place)
        if found is None:
            is_open = text.startswith('"', place)
            rule = (
                "the quote is not closed"
                if is_open
                else "a value is missing; quotes make a word of it"
            )
            raise mistake(text, place, len(text) if is_open else place + 1, rule)
        quoted, bare = found["quoted"], found["bare"]
        yield Value(
            text=unquoted(quoted) if bare is None else bare.removesuffix("*"),
            start=place,
            end=found.end(),
            is_quoted=bare is None,
            is_prefix=bool(found["star"]) if bare is None else bare.endswith("*"),
        )
        if not text.startswith(",", found.end()):
            return
        place = found.end() + 1
