"""Spans with attributes and texts in all places, and which of them a search finds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from observatory_storage import Exists, OneOf
from observatory_storage.repositories import SpanFilters, TraceFilters
from tests.repositories.samples import DAY, Row, a_span, meets, span_key, trace_key

# Of late, for partitions of a day.
BEGIN = (datetime.now(UTC) - 20 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = 9
WORDS = ["river", "Paris", "café", "straße", "привет", "x1", "never"]
LIKELIHOOD = [8, 5, 4, 2, 2, 1, 0]


@dataclass(frozen=True)
class Query:
    """A text, and which documents have what it asks for."""

    text: str
    is_in: Callable[[list[str]], bool] = field(compare=False)

    def __str__(self) -> str:
        return self.text


def _phrase(words: list[str], *wanted: str) -> bool:
    return any(words[at : at + len(wanted)] == list(wanted) for at in range(len(words)))


QUERIES = [
    Query("river", lambda words: "river" in words),
    Query("PARIS river", lambda words: {"paris", "river"} <= set(words)),
    Query("café", lambda words: "café" in words),
    Query("Straße привет", lambda words: {"straße", "привет"} <= set(words)),
    Query("x1", lambda words: "x1" in words),
    Query("never", lambda words: "never" in words),
    Query("x1 or привет", lambda words: "x1" in words or "привет" in words),
    Query("river -paris", lambda words: "river" in words and "paris" not in words),
    Query('"river paris"', lambda words: _phrase(words, "river", "paris")),
    Query("riv*", lambda words: any(word.startswith("riv") for word in words)),
    Query("iver", lambda words: "iver" in words),
]


class Content:
    """Prompts and completions as instrumentations write them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def attributes(self) -> tuple[dict[str, Any], list[str]]:
        """The attributes, and the words in them."""
        asked, answered = self._words(), self._words()
        message = [{"role": "user", "parts": [{"type": "text", "content": " ".join(asked)}]}]
        in_json = json.dumps([{"role": "user", "content": "\n".join(asked)}])
        form: dict[str, Any] = self._chance.choice(
            [
                {"gen_ai.input.messages": message, "gen_ai.completion": " ".join(answered)},
                {"gen_ai.prompt": in_json, "gen_ai.completion": json.dumps(answered)},
                {"input.value": in_json, "output.value": "\t".join(answered)},
                {"llm.input_messages.0.message.content": "\r\n".join(asked)}
                | {"llm.output_messages.0.message.content": f"<b>{'</b>, ('.join(answered)}."},
                {"ai.prompt": in_json, "ai.response.text": "\\ ".join(answered)},
                {"traceloop.entity.input": json.dumps({"x": {"y": asked}}), "other": "river paris"},
            ]
        )
        words = asked if "other" in form else [*asked, *answered]
        return form, [word.lower() for word in words]

    def _words(self) -> list[str]:
        return self._chance.choices(WORDS, LIKELIHOOD, k=self._chance.randrange(4))


def _make_rows() -> tuple[list[Row], dict[str, list[list[str]]]]:
    """Spans, many of traces that begin on one day and end on another; the words by span."""
    chance = random.Random(11)
    content = Content(chance)
    rows, documents = [], {}
    for trace in range(1, 161):
        begins = BEGIN + chance.random() * DAYS * DAY
        for number in range(chance.randrange(1, 5)):
            attributes, words = content.attributes() if chance.random() < 0.4 else ({}, [])
            row = a_span(
                trace,
                trace * 10 + number,
                begins + number * chance.choice([timedelta(seconds=1), DAY / 4, DAY]),
                start_ns=0,
                status=chance.choice(["ok", "ok", "error"]),
                kind="client",
                total_tokens=chance.choice([None, 10, 1000]),
                total_cost_usd=None,
                attributes=attributes,
            )
            documents[span_key(trace * 10 + number)] = [words]
            # Rare, frequent, and frequent of old.
            pairs: list[dict[str, Any]] = [{"tenant": chance.randrange(40)}, {"all": True}]
            pairs.append({"version": 1 if begins < BEGIN + 4 * DAY else 2.0})
            for pair in pairs:
                _place(chance, row, pair)
            if chance.random() < 0.2:
                in_event, words = content.attributes()
                row.setdefault("events", []).append(
                    {"name": "e", "timestamp": begins, "attributes": in_event}
                )
                documents[row["span_id"]].append(words)
            rows.append(row)
    return rows, documents


def _place(chance: random.Random, row: Row, pair: dict[str, Any]) -> None:
    place = chance.choice(["attributes", "resource_attributes", "scope_attributes", "l", "e"])
    if place == "e":
        event = {"name": "e", "timestamp": row["start_time"], "attributes": pair}
        row.setdefault("events", []).append(event)
    elif place == "l":
        link = {"trace_id": trace_key(1), "span_id": span_key(1), "attributes": pair}
        row.setdefault("links", []).append(link)
    else:
        row[place] = {**row.get(place, {}), **pair}


ROWS, DOCUMENTS = _make_rows()


def some_filters(seed: int, count: int) -> Iterator[tuple[dict[str, Any], Query | None]]:
    chance = random.Random(seed)
    for _ in range(count):
        given: dict[str, Any] = {}
        query = chance.choice([None, *QUERIES])
        pairs: list[dict[str, Any]] = [
            {"tenant": chance.randrange(40)},
            {"all": True},
            {"version": 1},
            {"version": 2},
            {"tenant": OneOf(*(chance.randrange(-20, 40) for _ in range(4)))},
            {"version": OneOf(1, "1")},
            {"version": Exists()},
        ]
        wanted = chance.sample(pairs, chance.choice([0, 1, 1, 2]) if query else 1)
        if wanted:
            given["attributes"] = {key: value for pair in wanted for key, value in pair.items()}
        if chance.random() < 0.4:
            given["start_time"] = BEGIN + chance.random() * DAYS * DAY
        if chance.random() < 0.4:
            given["end_time"] = given.get("start_time", BEGIN) + chance.random() * DAYS * DAY
        if chance.random() < 0.2:
            given["status"] = "error"
        if chance.random() < 0.2:
            given["min_tokens"] = 11
        yield given, query


def matching(filters: SpanFilters | TraceFilters, query: Query | None) -> list[Row]:
    found = [row for row in ROWS if meets(row, filters)]
    if query is None:
        return found
    return [row for row in found if any(map(query.is_in, DOCUMENTS[row["span_id"]]))]
