"""Words of long texts in frames are found where those in rows are: at the ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from observatory_storage import CopyWriter, SpanFilters, StoragePool
from tests.repositories.samples import START, a_span, keys
from tests.writers.helpers import empty

LONG_WORDS = " ".join(f"filler{number}" for number in range(40_000))
WORDS = [
    f"{side}{place}{number}"
    for side in ("asked", "answered")
    for place in ("first", "near", "middle", "late", "last")
    for number in (1, 2)
]


def long_attributes(number: int) -> dict[str, Any]:
    """Attributes with words at both ends and in the middle of texts beyond what is searched."""
    half = len(LONG_WORDS) // 2

    def text(side: str) -> str:
        near = f"{LONG_WORDS[:49_000]} {side}near{number} {LONG_WORDS[49_000:half]}"
        end = f"{side}middle{number} {LONG_WORDS[half:-49_000]} {side}late{number}"
        return f"{side}first{number} {near} {end} {LONG_WORDS[-49_000:]} {side}last{number}"

    asked: Any = text("asked")
    if number % 2:
        asked = [{"role": "user", "content": [{"text": asked}, {"text": f"short{number}"}]}]
    return {"gen_ai.input.messages": asked, "gen_ai.output.messages": text("answered")}


def answers(pool: StoragePool, kind: str) -> dict[str, list[Any]]:
    """The spans with each word, by a search for words or for what is contained."""
    found = {}
    with pool.unit_of_work() as uow:
        for word in WORDS:
            given: Any = {kind: word, "start_time": START, "end_time": START + timedelta(days=1)}
            found[word] = keys(uow.traces.list_spans(SpanFilters(**given)))
    return found


def test_the_same_words_of_long_texts_are_found(pool: StoragePool) -> None:
    spans = [a_span(n, n, attributes=long_attributes(n)) for n in (1, 2)]
    CopyWriter(pool, payloads="inline").write_spans(spans)
    expected = answers(pool, "text"), answers(pool, "contains")
    empty(pool)
    CopyWriter(pool, payloads="compressed").write_spans(spans)
    assert (answers(pool, "text"), answers(pool, "contains")) == expected
    # Words in the middle are beyond what is searched for words.
    found = [word for word, spans_found in expected[0].items() if spans_found]
    assert 0 < len(found) < len(WORDS)
