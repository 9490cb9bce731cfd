"""Text searches: words as in a web search.

A word with other characters than letters and digits (an address, a path, a version) is first
searched by its parts, which are in the index. Then it is compared literally in the rows that
contain these parts.

PostgreSQL's ``websearch_to_tsquery`` reads words, phrases, ``or`` and ``-not``, but no prefixes.
Therefore each word that ends with ``*`` is passed to it as a placeholder, which is then replaced by
the query for the prefix.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, func, not_, or_, type_coerce
from sqlalchemy import text as sql

from observatory_storage.errors import ValidationError
from observatory_storage.models.search_words import separate
from observatory_storage.payloads.content_words import runs_of

__all__ = ["Run", "TextSearch", "has_plain_words", "longest_run"]

_PIECES: Final = re.compile(r'(?P<signs>-*)(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))')
_MOST_PREFIXES: Final = 20
_CONFIGURATION: Final = "'simple'::regconfig"
# Punctuation around words is not searched for: brackets, quotation marks and the ends of sentences,
# also those of Chinese and Japanese.
_OPENING: Final = "'`([{\u201c\u201d\u2018\u2019\u00ab\u00bb\u00bf\u00a1\u201e"
_CLOSING: Final = _OPENING + ".,;:?!)]}*\u2026\u3002\uff0c\u3001\uff1b\uff1a\uff1f\uff01"
_APOSTROPHES: Final = re.compile(r"['\u2019]")
_BLANKS: Final = str.maketrans(dict.fromkeys(string.punctuation, " "))

# Makes the condition that a row has a text literally, in upper or lower case.
HasLiteral = Callable[[str], ColumnElement[bool]]


class Run(NamedTuple):
    """Letters and digits that a word of a search consists of, without regard to case.

    Attributes:
        text: as `payloads.content_words` has it.
        is_beginning: whether a word that only begins so is enough.
        is_literal: whether these very letters stand in every text with the word, in any case.
    """

    text: str
    is_beginning: bool = False
    is_literal: bool = True


@dataclass(frozen=True, slots=True)
class _Word:
    """A word without the punctuation at its ends, or the beginning of a word."""

    text: str
    is_beginning: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether PostgreSQL's parser reads it as one word, whatever stands around it."""
        return self.text.isalnum() and separate(self.text) == self.text

    def parts(self) -> list[_Word]:
        """The words that the index has of every text with this word."""
        spaced = separate(self.text).translate(_BLANKS)
        parts = [_Word(part) for part in spaced.split()]
        if self.is_beginning and not spaced.endswith(" "):
            parts[-1] = _Word(parts[-1].text, is_beginning=True)
        return parts

    def runs(self) -> list[Run]:
        """Its runs of letters and digits."""
        # Case folding makes other letters equal to those of ASCII, such as ß to ss.
        found = [Run(run, is_literal=self.text.isascii()) for run in runs_of(self.text)]
        if self.is_beginning and found:
            found[-1] = found[-1]._replace(is_beginning=True)
        return found


@dataclass(frozen=True, slots=True)
class _Term:
    """A word, or words that follow each other.

    Attributes:
        literals: texts that a match must contain literally, if comparing words is not enough.
        is_scattered: whether the words may stand anywhere, not only next to each other.
    """

    words: Sequence[_Word]
    literals: Sequence[str]
    is_excluded: bool
    is_scattered: bool = False

    @property
    def is_plain_word(self) -> bool:
        """Whether it is one whole word that a match must have and that needs no comparison."""
        is_word = len(self.words) == 1 and not self.words[0].is_beginning
        return is_word and not self.literals and not self.is_excluded


class TextSearch:
    """A search that a user typed.

    Args:
        text: all words, ``"a phrase"``, ``or``, ``-not``, ``begin*``. All other text is literal.

    Raises:
        ValidationError: more than twenty words end with ``*``.
    """

    def __init__(self, text: str) -> None:
        self._alternatives = list(_alternatives(text))
        words = (word for terms in self._alternatives for term in terms for word in term.words)
        beginnings = dict.fromkeys(word.text for word in words if word.is_beginning)
        if len(beginnings) > _MOST_PREFIXES:
            raise ValidationError("text", text, f"must have at most {_MOST_PREFIXES} words with *")
        unused = (name for n in count() if (name := f"prefix{n}") not in text.lower())
        self._names = dict(zip(beginnings, unused, strict=False))

    def condition(
        self,
        vector: ColumnElement[Any],
        has_literal: HasLiteral,
        in_order: ColumnElement[Any] | None = None,
    ) -> ColumnElement[bool]:
        """The condition that a row matches.

        Args:
            vector: the words of the row, made by `search_words.words_of`, on which there is an
                index.
            in_order: the words of the row without the additional words that the vector may have
                between two adjacent words; None if the vector has none.
        """

        def rechecked(term: _Term) -> bool:
            return bool(term.literals) or (in_order is not None and len(term.words) > 1)

        def recheck(term: _Term) -> ColumnElement[bool]:
            included = replace(term, is_excluded=False)
            found = [has_literal(literal) for literal in term.literals]
            if in_order is not None and not term.literals:
                found.append(in_order.bool_op("@@")(self._query([[included]])))
            if not term.is_excluded:
                return and_(*found)
            # A row that contains only the parts is not excluded.
            return not_(and_(vector.bool_op("@@")(self._query([[_scattered(included)]])), *found))

        def alternative(terms: Sequence[_Term]) -> ColumnElement[bool]:
            found = [recheck(term) for term in terms if rechecked(term)]
            indexed = [
                _scattered(term) if rechecked(term) else term
                for term in terms
                if not (rechecked(term) and term.is_excluded)
            ]
            if indexed:
                found.insert(0, vector.bool_op("@@")(self._query([indexed])))
            return and_(*found)

        if any(rechecked(term) for terms in self._alternatives for term in terms):
            return or_(*map(alternative, self._alternatives))
        return vector.bool_op("@@")(self.query())

    @property
    def excludes(self) -> bool:
        """Whether it has a word that a match must not have."""
        return any(term.is_excluded for terms in self._alternatives for term in terms)

    def query(self) -> ColumnElement[Any]:
        """The tsquery, for ranking. It does not contain the texts that must match literally."""
        return self._query(
            [_scattered(term) if term.literals else term for term in terms]
            for terms in self._alternatives
        )

    def plain_query(self) -> str | None:
        """All words as ``websearch_to_tsquery`` takes them; None unless each is a plain word.

        The condition of such a search is the same for all words.
        """
        terms = self._alternatives[0] if len(self._alternatives) == 1 else []
        if not terms or not all(term.is_plain_word for term in terms):
            return None
        return " ".join(map(self._written, terms))

    def required_word(self) -> str | None:
        """The longest run of ASCII letters and digits that every match has, in any case."""
        if len(self._alternatives) != 1:
            return None
        included = (term for term in self._alternatives[0] if not term.is_excluded)
        return longest_run(" ".join(word.text for term in included for word in term.words))

    def required_runs(self) -> list[list[Run]]:
        """The runs of letters and digits that a match has: all of one of these lists."""
        return [
            [run for term in terms if not term.is_excluded for w in term.words for run in w.runs()]
            for terms in self._alternatives
        ]

    def _query(self, alternatives: Iterable[Sequence[_Term]]) -> ColumnElement[Any]:
        written = " or ".join(" ".join(map(self._written, terms)) for terms in alternatives)
        query: ColumnElement[Any] = func.websearch_to_tsquery(sql(_CONFIGURATION), written)
        for beginning, name in self._names.items():
            if f'{name}"' in written or f"{name} " in written:
                target = func.plainto_tsquery(sql(_CONFIGURATION), name)
                prefix = func.to_tsquery(sql(_CONFIGURATION), f"'{beginning}':*")
                query = func.ts_rewrite(query, target, prefix)
        return query

    def _written(self, term: _Term) -> str:
        """The term for ``websearch_to_tsquery``. All is quoted, so that no word is an operator."""
        words = (self._names[w.text] if w.is_beginning else w.text for w in term.words)
        between = '" "' if term.is_scattered else " "
        return f'{"-" * term.is_excluded}"{between.join(words)}"'


def has_plain_words(vector: ColumnElement[Any], words: Any) -> ColumnElement[bool]:
    """The condition that a row has all words of a `TextSearch.plain_query`."""
    query = func.websearch_to_tsquery(sql(_CONFIGURATION), type_coerce(words, Text))
    return vector.bool_op("@@")(query)


def longest_run(text: str) -> str | None:
    """The longest run of ASCII letters and digits in a text, because JSON never escapes these."""
    return max(re.findall("[A-Za-z0-9]+", text), key=len, default=None)


def _scattered(term: _Term) -> _Term:
    # A tsvector does not have all positions of a word in a long text.
    return replace(term, is_scattered=True)


def _alternatives(text: str) -> Iterator[list[_Term]]:
    """The terms of a text; those that ``or`` divides are apart."""
    terms: list[_Term] = []
    for match in _PIECES.finditer(text):
        word, signs = match["word"], match["signs"]
        if word is not None and not signs and word.lower() == "or":
            if terms:
                yield terms
            terms = []
            continue
        # One sign excludes. Two are part of a word, such as --verbose.
        is_excluded = len(signs) == 1
        written = match["phrase"] if word is None else word if is_excluded else signs + word
        words = [found for each in written.split() if (found := _word(each)) is not None]
        if words:
            terms.append(_term(words, written, is_excluded=is_excluded))
    if terms:
        yield terms


def _term(words: list[_Word], written: str, *, is_excluded: bool) -> _Term:
    # There are several apostrophe characters. The parts on both sides of one become adjacent words.
    divided = [part for word in words for part in _divided(word)]
    if all(word.is_plain for word in divided):
        return _Term(divided, (), is_excluded)
    parts = [part for word in words for part in word.parts()]
    if len(words) == 1:
        return _Term(parts, (words[0].text,), is_excluded)
    literals = [one for each in written.split("*") if (one := each.strip().strip(_CLOSING))]
    return _Term(parts, literals, is_excluded)


def _divided(word: _Word) -> list[_Word]:
    *first, last = _APOSTROPHES.split(word.text)
    return [*map(_Word, first), _Word(last, word.is_beginning)]


def _word(written: str) -> _Word | None:
    """The word that is written so; None if it has neither letters nor digits."""
    text = written.lstrip(_OPENING)
    beginning = text[:-1]
    if text.endswith("*") and "*" not in beginning:
        word = _Word(beginning, is_beginning=True)
    else:
        word = _Word(text.lstrip("*").rstrip(_CLOSING))
    return word if any(map(str.isalnum, word.text)) else None
