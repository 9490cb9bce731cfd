"""Local language models: word n-grams of the corpus. The same prompt always gets the same answer.

They are small, but their measurements are real: tokens are counted in prompts and completions, and
prices and speeds are per token.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

__all__ = ["MODELS", "Completion", "LanguageModel", "ModelCard", "tokenize"]

_TOKEN = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_NO_SPACE_BEFORE = frozenset(".,;:!?)'\"")
_ENDS = frozenset(".!?")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The published data of a model. Prices are US dollars per million tokens."""

    name: str
    provider: str
    order: int
    input_price: Decimal
    output_price: Decimal
    prefill_tokens_per_sec: float
    decode_tokens_per_sec: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> tuple[Decimal, Decimal]:
        """The costs of a call in US dollars: of its prompt, and of its completion."""
        million = Decimal(1_000_000)
        return (
            prompt_tokens * self.input_price / million,
            completion_tokens * self.output_price / million,
        )


# The price list of the demo. Names and prices are invented; the proportions are usual ones.
MODELS = {
    card.name: card
    for card in (
        ModelCard("quill-mini", "quill", 2, Decimal("0.15"), Decimal("0.60"), 4000.0, 120.0),
        ModelCard("quill-large", "quill", 3, Decimal("2.50"), Decimal("10.00"), 1500.0, 45.0),
        ModelCard("scribe-1", "scribe", 3, Decimal("1.00"), Decimal("4.00"), 2200.0, 70.0),
    )
}


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer: its text, its token counts, and why it ended (``stop`` or ``length``)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


def tokenize(text: str) -> list[str]:
    """Words and punctuation marks."""
    return _TOKEN.findall(text)


class LanguageModel:
    """An n-gram model that backs off to shorter contexts if it has not seen a longer one."""

    def __init__(self, card: ModelCard, texts: Iterable[str]) -> None:
        self.card = card
        self._follows: dict[tuple[str, ...], list[str]] = {}
        for text in texts:
            tokens = tokenize(text)
            for position, token in enumerate(tokens):
                for length in range(min(card.order, position + 1)):
                    context = tuple(tokens[position - length : position])
                    self._follows.setdefault(context, []).append(token)

    def complete(self, prompt: str, max_tokens: int) -> Completion:
        """Continue the prompt by at most `max_tokens`, or to the end of a sentence."""
        given = tokenize(prompt)
        choose = random.Random(f"{self.card.name}\n{prompt}")
        tokens: list[str] = []
        while len(tokens) < max_tokens:
            token = choose.choice(self._candidates([*given[-self.card.order :], *tokens]))
            tokens.append(token)
            if token in _ENDS and len(tokens) >= max_tokens // 2:
                return Completion(_joined(tokens), len(given), len(tokens), "stop")
        return Completion(_joined(tokens), len(given), len(tokens), "length")

    def _candidates(self, before: list[str]) -> list[str]:
        for length in range(self.card.order - 1, 0, -1):
            found = self._follows.get(tuple(before[-length:]))
            if found:
                return found
        return self._follows[()]


def _joined(tokens: list[str]) -> str:
    text = ""
    for token in tokens:
        text += token if token in _NO_SPACE_BEFORE else f" {token}"
    return text.strip()
