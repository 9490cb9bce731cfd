"""Spans that any process can make again from their numbers, and who of several writes which.

Neighbours are spans of one trace and belong to different writers, so that every trace is written
by all of them at once. Some spans are sent by two writers, and some are sent before they have
ended by one writer, and ended by another. Some are sent wrong and a while later, by the same
writer, right: the last version must remain.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tests.writers.helpers import START, Row, span_id, trace_id

__all__ = ["Workload"]

_SPANS_A_TRACE: Final = 10
_DAYS: Final = 3
# Of each so many spans one is sent twice, and another one also before it has ended.
_PERIOD: Final = 25
_TWICE: Final = 3
_UNENDED: Final = 17
_WRONG: Final = 9
# How many other spans a writer sends before it corrects a wrong one: mostly in another batch.
_CORRECTED_AFTER: Final = 30


class Workload(NamedTuple):
    """So many spans by so many writers.

    Attributes:
        spans: how many there are in the end.
        writers: how many threads share them.
        corrected: whether some are sent wrong first. What a killed process has left in its spool
            may come after newer versions, so there they are not.
    """

    spans: int
    writers: int
    corrected: bool = True

    @property
    def traces(self) -> int:
        return -(-self.spans // _SPANS_A_TRACE)

    @property
    def sent(self) -> int:
        """How many spans all writers send together."""
        return sum(sum(1 for _ in self._numbers(writer)) for writer in range(self.writers))

    def share(self, writer: int, done: int = 0) -> Iterator[Row]:
        """What one of the writers sends, without the first ones that it is done with."""
        for place, (number, version) in enumerate(self._numbers(writer)):
            if place >= done:
                span = self.span(number)
                if version == _WRONG:
                    span = wrong(span)
                elif version == _UNENDED and span["end_time"]:
                    span = unended(span)
                yield span

    def _numbers(self, writer: int) -> Iterator[tuple[int, int]]:
        """The numbers of what the writer sends, each with the version, or -1 for the right one."""
        to_correct: deque[int] = deque()
        for number in range(self.spans):
            if number % self.writers == writer:
                if self.corrected and number % _PERIOD == _WRONG:
                    yield number, _WRONG
                    to_correct.append(number)
                else:
                    yield number, -1
                if to_correct and number - to_correct[0] > _CORRECTED_AFTER * self.writers:
                    yield to_correct.popleft(), -1
            elif (version := number % _PERIOD) in (_TWICE, _UNENDED):
                other = 1 + number // _PERIOD % (self.writers - 1)
                if (number + other) % self.writers == writer:
                    yield number, version
        for number in to_correct:
            yield number, -1

    def trace(self, number: int) -> list[Row]:
        """The spans of a trace, as they should be stored."""
        first = number * _SPANS_A_TRACE
        return [self.span(n) for n in range(first, min(first + _SPANS_A_TRACE, self.spans))]

    def span(self, number: int) -> Row:
        """A span as it should be stored, whoever sends it and however often."""
        source = random.Random(number)
        trace, place = divmod(number, _SPANS_A_TRACE)
        start = START + timedelta(days=trace % _DAYS, microseconds=source.randrange(10**7))
        end = start + timedelta(microseconds=source.randrange(10**6))
        tokens = source.choice((None, 0, source.randrange(5000)))
        cost = source.choice((None, Decimal(source.randrange(10**9)) / 10**12))
        return {
            "trace_id": trace_id(trace + 1),
            "span_id": span_id(number + 1),
            # Mostly one root; a trace may have two, or none.
            "parent_span_id": None if source.random() < 0.12 else span_id(number + 1 - place),
            "name": f"operation {source.randrange(5)}",
            "kind": source.choice(("internal", "server", "client")),
            "service_name": source.choice(("shop", "cart", "bank")),
            "start_time": start,
            "start_ns": source.randrange(1000),
            "end_time": None if source.random() < 0.02 else end,
            "end_ns": 999,
            "status": source.choice(("unset", "unset", "ok", "ok", "error")),
            "status_message": source.choice((None, "it broke")),
            "attributes": {"number": number, "note": "x" * source.randrange(200)},
            # Spans above others report no usage, which would not count there.
            "total_tokens": tokens if place else None,
            "total_cost_usd": cost if place else None,
            "events": _events(start, source.choice((0, 0, 1, 3))),
        }


def unended(span: Row) -> Row:
    """The same span before it has ended, when little of it was known."""
    start = span["start_time"]
    key = {column: span[column] for column in ("trace_id", "span_id", "start_time", "start_ns")}
    return key | {
        "name": "unended",
        "service_name": "early",
        "status": "error",
        "total_tokens": 10**6,
        "events": _events(start, 2, "early"),
    }


def wrong(span: Row) -> Row:
    """The same span with mistakes, ended as it is: everything but its key is replaced later."""
    return span | {
        "parent_span_id": None,
        "name": "wrong",
        "kind": "producer",
        "service_name": "a mistake",
        "status": "error",
        "status_message": "wrong",
        "attributes": {"wrong": True},
        "total_tokens": 10**7,
        "total_cost_usd": Decimal(1),
        "events": _events(span["start_time"], 2, "wrong"),
    }


def _events(start: datetime, number: int, name: str = "event") -> list[dict[str, Any]]:
    return [
        {"name": f"{name} {n}", "timestamp": start + timedelta(microseconds=n)}
        for n in range(number)
    ]
