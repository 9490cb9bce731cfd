"""Model calls with long texts, as spans and log records: words of the corpus, in a likely order.

The demo's corpus is smaller than the texts of a trace, so its sentences would be repeated. Here
each word is followed by one that follows it in the corpus, which compresses about as well as
English prose.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import observatory_storage.demo
from observatory_storage.rows import prepare_log
from tests.benchmarks.workload import SPANS_A_TRACE, Workload, of_spans, wide_span_rows

__all__ = ["chats", "logged_prompts", "prompts"]

_CORPUS: Final = Path(observatory_storage.demo.__file__).parent / "corpus"
_PROMPT, _COMPLETION = 4_000, 1_500  # characters
_OF_SPAN: Final = ("trace_id", "span_id", "service_name", "resource_attributes")
_TURN: Final = 1_250  # characters of a question and its answer


def prompts(count: int) -> Workload:
    """Calls with independent prompts, 5.5 kB a span, ten a trace."""
    text, rows = _Text(5), []
    for row in wide_span_rows(count):
        question = [{"role": "user", "content": text.of(_PROMPT)}]
        answer = [{"role": "assistant", "content": text.of(_COMPLETION)}]
        rows.append(_call(row, question, answer))
    return of_spans("independent prompts", rows)


def chats(count: int) -> Workload:
    """Chats of ten turns, 7.5 kB a span: each call carries the conversation so far."""
    text, rows = _Text(6), []
    history: list[dict[str, str]] = []
    for index, row in enumerate(wide_span_rows(count)):
        if index % SPANS_A_TRACE == 0:
            history = []
        history.append({"role": "user", "content": text.of(_TURN // 3)})
        answer = {"role": "assistant", "content": text.of(_TURN - _TURN // 3)}
        rows.append(_call(row, history, [answer]))
        history.append(answer)
    return of_spans("chats of ten turns", rows)


def logged_prompts(count: int) -> Workload:
    """Log records of model calls with independent prompts in their bodies, ten a trace."""
    text, rows = _Text(7), []
    for row in wide_span_rows(count):
        given = {name: row[name] for name in _OF_SPAN}
        question = [{"role": "user", "content": text.of(_PROMPT)}]
        answer = [{"role": "assistant", "content": text.of(_COMPLETION)}]
        body = {"gen_ai.input.messages": question, "gen_ai.output.messages": answer}
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
        named = {"event_name": "gen_ai.client.inference.operation.details", "severity_number": 9}
        times = {"timestamp": row["start_time"], "attributes": attributes, "body_json": body}
        rows.append({**given, **named, **times})
    return Workload("logged prompts", "logs", rows, [prepare_log(row) for row in rows])


def _call(row: dict[str, Any], sent: list[Any], answered: list[Any]) -> dict[str, Any]:
    texts = {
        "gen_ai.input.messages": json.dumps(sent),
        "gen_ai.output.messages": json.dumps(answered),
    }
    return {**row, "attributes": {**row["attributes"], **texts}}


class _Text:
    """Text of any length.

    Args:
        seed: the same text follows from the same seed.
    """

    def __init__(self, seed: int) -> None:
        words = " ".join(path.read_text() for path in sorted(_CORPUS.glob("*.txt"))).split()
        following: dict[str, list[str]] = defaultdict(list)
        for word, after in zip(words, [*words[1:], words[0]], strict=True):
            following[word].append(after)
        self._words = self._likely(random.Random(seed), following, words[0])

    def of(self, length: int) -> str:
        taken: list[str] = []
        size = 0
        while size < length:
            taken.append(next(self._words))
            size += len(taken[-1]) + 1
        return " ".join(taken)

    @staticmethod
    def _likely(chance: random.Random, following: dict[str, list[str]], word: str) -> Iterator[str]:
        while True:
            word = chance.choice(following[word])
            yield word
