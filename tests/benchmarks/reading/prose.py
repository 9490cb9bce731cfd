"""Text with common and rare words, the same each time."""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import Final

__all__ = ["Prose", "prose"]

_WORDS: Final = 5_000
_COMMON: Final = 500
_SENTENCES: Final = 40_000
_WORDS_A_SENTENCE: Final = 10
_ONSETS: Final = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z")
_VOWELS: Final = ("a", "e", "i", "o", "u")


class Prose:
    """Sentences to make texts of, about 75 characters each.

    A word is the rarer the later it stands in the vocabulary (by Zipf's law, as in languages):
    the first makes a ninth of all text, the last one word in 45,000.

    Attributes:
        sentences: the same for the same seed.
    """

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        syllables = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]
        words: dict[str, None] = {}
        while len(words) < _WORDS:
            words["".join(chance.choices(syllables, k=chance.randrange(2, 5)))] = None
        vocabulary = list(words)
        weights = list(itertools.accumulate(1 / rank for rank in range(1, _WORDS + 1)))
        self.sentences = [
            " ".join(chance.choices(vocabulary, cum_weights=weights, k=_WORDS_A_SENTENCE))
            for _ in range(_SENTENCES)
        ]
        self._common = frozenset(vocabulary[:_COMMON])

    def text(self, chance: random.Random, sentences: int) -> str:
        """So many sentences."""
        return ". ".join(chance.choices(self.sentences, k=sentences))

    def telling_words(self, text: str, chance: random.Random, count: int) -> str:
        """Words of the text as somebody would search for it by: not its most common ones."""
        words = sorted({word.strip(".") for word in text.split()})
        rare = [word for word in words if word.isalpha() and word not in self._common]
        return " ".join(chance.sample(rare or words, k=min(count, len(rare or words))))


@cache
def prose(seed: int) -> Prose:
    """Made once a process."""
    return Prose(seed)
