"""What is stored to be asked about: any part of it can be made again from its number alone.

So nothing is kept in memory while it is loaded, and what a question asks for (a user, an order, a
word) is drawn from what is there without asking the database.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from observatory_storage.rows import prepare_metric
from tests.benchmarks.reading.prose import Prose, prose
from tests.benchmarks.reading.spans import REGIONS, Asked, spans_of

__all__ = ["DAY", "Dataset", "Sizes", "Told"]

DAY: Final = timedelta(days=1)
_SEED: Final = 20
# Traces begin in all but the last minute of a day, so that they end in it too.
_BEGINNING: Final = DAY - timedelta(minutes=1)
_TRACES_A_USER: Final = 10
_SESSIONS_A_USER: Final = 3
_LEVELS: Final = ((5, "DEBUG"), (9, "INFO"), (9, "INFO"), (9, "INFO"), (13, "WARN"), (17, "ERROR"))
_MINUTES: Final = 24 * 60
_SERIES_A_METRIC: Final = 10


@dataclass(frozen=True)
class Sizes:
    """How much there is; each is the same every day."""

    spans: int
    traces: int
    logs: int
    points: int
    days: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for many, few in (("spans", "traces"), ("logs", "traces")):
            if getattr(self, many) % getattr(self, few):
                raise ValueError(f"{many} must be a multiple of {few}")
        for many in ("traces", "points"):
            if getattr(self, many) % self.days:
                raise ValueError(f"{many} must be a multiple of days")

    def part(self, of: int) -> Sizes:
        """A smaller set in proportion, over the same days."""
        traces = max(self.traces // of // self.days, 1) * self.days
        points = max(self.points // of // self.days, 1) * self.days
        return Sizes(
            spans=self.spans // self.traces * traces,
            traces=traces,
            logs=self.logs // self.traces * traces,
            points=points,
            days=self.days,
        )


class Told(NamedTuple):
    """One trace: who asked for what, and the rows."""

    asked: Asked
    spans: list[dict[str, Any]]
    logs: list[dict[str, Any]]


@dataclass(frozen=True)
class Dataset:
    """The rows, by their numbers.

    Attributes:
        first_day: its midnight in UTC; the last of the days counts as the one that is still open.
    """

    sizes: Sizes
    first_day: datetime

    @property
    def end(self) -> datetime:
        return self.first_day + self.sizes.days * DAY

    @property
    def open_day(self) -> datetime:
        return self.end - DAY

    def any_trace(self, chance: random.Random, day: datetime | None = None) -> Told:
        """One of the traces, of all days or of one."""
        a_day = self.sizes.traces // self.sizes.days
        if day is None:
            return self.trace(chance.randrange(self.sizes.traces))
        return self.trace((day - self.first_day) // DAY * a_day + chance.randrange(a_day))

    def any_closed_day(self, chance: random.Random) -> datetime:
        """A day whose partitions have their late indexes; with one day alone, that."""
        return self.first_day + chance.randrange(max(self.sizes.days - 1, 1)) * DAY

    def any_moment(self, chance: random.Random) -> datetime:
        """A time with a day of data before it."""
        days = max(self.sizes.days - 1, 0)
        return self.first_day + DAY + timedelta(seconds=chance.random() * days * 86_400)

    def trace(self, number: int) -> Told:
        """The trace of a number, from 0; they are numbered by their start."""
        chance = random.Random(_SEED << 40 | number)
        day, of_day = divmod(number, self.sizes.traces // self.sizes.days)
        step = _BEGINNING / (self.sizes.traces // self.sizes.days)
        user = chance.randrange(max(1, self.sizes.traces // _TRACES_A_USER))
        asked = Asked(
            number=number,
            trace_id=f"{chance.getrandbits(128) | 1:032x}",
            start=self.first_day + day * DAY + (of_day + chance.random()) * step,
            user=f"user-{user:06d}",
            session=f"session-{user:06d}-{chance.randrange(_SESSIONS_A_USER)}",
            region=chance.choice(REGIONS),
        )
        spans = spans_of(asked, self.sizes.spans // self.sizes.traces, chance, self.prose)
        return Told(asked, spans, list(self._logs_of(asked, spans, chance)))

    def points(self, first: int, count: int) -> Iterator[dict[str, Any]]:
        """Data points from a number on: gauges that report every minute."""
        chance = random.Random(_SEED << 44 | first)
        a_day = self.sizes.points // self.sizes.days
        for number in range(first, first + count):
            day, of_day = divmod(number, a_day)
            minute, series = divmod(of_day, self._series)
            metric, one = divmod(series, _SERIES_A_METRIC)
            yield {
                "metric_id": _metric_id(metric),
                "timestamp": self.first_day + day * DAY + timedelta(minutes=1) * minute,
                "value": chance.random() * 100,
                "attributes": {"queue": f"queue-{one}", "host.name": f"worker-{one % 4}"},
            }

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The definitions of the points' metrics."""
        return map(_metric, range(-(-self._series // _SERIES_A_METRIC)))

    @property
    def _series(self) -> int:
        return -(-self.sizes.points // (self.sizes.days * _MINUTES))

    @property
    def prose(self) -> Prose:
        return prose(_SEED)

    def _logs_of(
        self, asked: Asked, spans: list[dict[str, Any]], chance: random.Random
    ) -> Iterator[dict[str, Any]]:
        request = asked.trace_id[:8]
        for at in range(self.sizes.logs // self.sizes.traces):
            span = spans[at % len(spans)]
            severity, level = chance.choice(_LEVELS)
            took = chance.randrange(1, 1_000)
            yield {
                # Not left to the writer, who would draw another one at every loading.
                "id": f"{chance.getrandbits(128):032x}",
                "timestamp": span["start_time"] + timedelta(microseconds=took),
                "severity_number": severity,
                "severity_text": level,
                "body": f"{self.prose.text(chance, 1)} request={request} took {took} us",
                "service_name": span["service_name"],
                "trace_id": asked.trace_id,
                "span_id": span["span_id"],
                "attributes": {"code.function": span["name"], "thread.id": at % 8, "retry": False},
                "resource_attributes": span["resource_attributes"],
            }


def _metric(number: int) -> dict[str, Any]:
    return {
        "name": f"queue.length.{number}",
        "metric_type": "gauge",
        "unit": "{item}",
        "service_name": "worker",
    }


@cache
def _metric_id(number: int) -> UUID:
    prepared = prepare_metric(_metric(number)).as_dict()["id"]
    assert isinstance(prepared, UUID)
    return prepared
