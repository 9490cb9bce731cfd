"""The texts that the demo searches, and BM25 search over their paragraphs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Hit", "Passage", "Shard", "load_passages", "words"]

# The constants of BM25: the saturation of repeated words, and the discount for long texts.
_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph of a document."""

    shard: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found. A higher score is a better match."""

    score: float
    passage: Passage


def load_passages() -> dict[str, list[Passage]]:
    """The passages of the corpus by shard. A shard is named after its file."""
    folder = files("observatory_storage.demo") / "corpus"
    texts = sorted((file for file in folder.iterdir() if file.name.endswith(".txt")), key=str)
    shards = {file.name.removesuffix(".txt"): file.read_text("utf-8") for file in texts}
    return {shard: list(_passages(shard, text)) for shard, text in shards.items()}


def _passages(shard: str, text: str) -> Iterator[Passage]:
    title = shard
    for block in text.split("\n\n"):
        paragraph = block.strip()
        if paragraph.startswith("# "):
            title = paragraph.removeprefix("# ")
        elif paragraph:
            yield Passage(shard, title, paragraph)


class Shard:
    """One part of the corpus with its inverted index."""

    def __init__(self, passages: list[Passage]) -> None:
        self.passages = passages
        counts = [Counter(words(f"{passage.title} {passage.text}")) for passage in passages]
        self._lengths = [count.total() for count in counts]
        self._mean_length = sum(self._lengths) / len(self._lengths)
        self._postings: dict[str, list[tuple[int, int]]] = {}
        for number, count in enumerate(counts):
            for word, times in count.items():
                self._postings.setdefault(word, []).append((number, times))

    def search(self, query: str, limit: int = 3) -> list[Hit]:
        """The passages that match the query best, the best first."""
        scores: Counter[int] = Counter()
        for word in set(words(query)):
            found = self._postings.get(word, [])
            rarity = math.log(1 + (len(self.passages) - len(found) + 0.5) / (len(found) + 0.5))
            for number, times in found:
                length = self._lengths[number] / self._mean_length
                damped = times + _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * length)
                scores[number] += rarity * times * (_SATURATION + 1) / damped  # type: ignore[assignment]  # a Counter of floats
        # Passages of equal scores are sorted by position, so that each run finds the same.
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return [Hit(score, self.passages[number]) for number, score in best]
