"""Writers that change and erase traces, and readers that check every answer of a cache.

Each trace has one writer, which gives it versions: all its spans tell the same version by their
name, their tokens and an attribute. A reader knows which version was committed before it began to
read, and which one it has seen itself. It must see neither an earlier version, nor one that nobody
has begun to write, nor a mixture.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, cast

from observatory_storage import CopyWriter, NotFound, StoragePool, UnitOfWork
from tests.repositories.samples import DAY, START, a_span, an_event, trace_key

__all__ = ["History", "Reader", "Writer", "run"]

_SPANS: Final = 3
_TRACES_A_WRITER: Final = 2


class Wrong(AssertionError):
    """A reader has seen what it must not see."""


@dataclass
class History:
    """The versions of one trace.

    Attributes:
        begun: the last version whose commit has begun.
        done: the last version whose commit has been reported.
        erasures: the versions in which there is no trace.
    """

    number: int
    begun: int = 0
    done: int = 0
    erasures: set[int] = field(default_factory=lambda: {0})

    @property
    def key(self) -> str:
        return trace_key(self.number)

    @property
    def service(self) -> str:
        return f"service {self.number}"

    def rows(self, version: int) -> list[dict[str, Any]]:
        start = START + self.number * DAY
        return [
            a_span(
                self.number,
                span,
                start + timedelta(seconds=span),
                name=f"version {version}",
                service_name=self.service,
                model="m",
                total_tokens=version,
                total_cost_usd=Decimal(version),
                attributes={"version": version},
                events=[an_event(f"event {version}")],
            )
            for span in range(1, _SPANS + 1)
        ]


class Writer(threading.Thread):
    """Writes and erases its traces until it is stopped."""

    def __init__(self, pool: StoragePool, histories: list[History], stop: threading.Event) -> None:
        super().__init__()
        self._pool, self._histories, self._stop_event = pool, histories, stop
        self._random = random.Random(histories[0].number)
        self.error: BaseException | None = None
        self.commits = 0

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                self._change(self._random.choice(self._histories))
                time.sleep(self._random.random() / 20)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error

    def _change(self, history: History) -> None:
        version = history.begun + 1
        is_erasure = history.done not in history.erasures and self._random.random() < 0.2
        if is_erasure:
            history.erasures.add(version)
        history.begun = version
        if is_erasure:
            with self._pool.unit_of_work() as uow:
                uow.traces.delete(history.key)
                uow.commit()
        else:
            CopyWriter(self._pool).write_spans(history.rows(version))
        history.done = version
        self.commits += 1


class Reader(threading.Thread):
    """Reads all traces, and checks what it sees."""

    def __init__(
        self, number: int, pool: StoragePool, histories: list[History], stop: threading.Event
    ) -> None:
        super().__init__()
        self._pool, self._histories, self._stop_event = pool, histories, stop
        self._random = random.Random(1_000 + number)
        self._seen = {history.number: 0 for history in histories}
        self.error: BaseException | None = None
        self.reads = 0

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                name = self._random.choice(list(_READS))
                self._check(name, self._random.choice(self._histories))
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error

    def _check(self, name: str, history: History) -> None:
        least = max(history.done, self._seen[history.number])
        with self._pool.unit_of_work() as uow:
            seen = _READS[name](uow, history)
        most = history.begun
        self.reads += 1
        if len(seen) > 1:
            raise Wrong(f"{name} of {history.number}: a mixture of versions {sorted(seen)}")
        if seen:
            (version,) = seen
            if not least <= version <= most:
                raise Wrong(f"{name} of {history.number}: {version}, not in {least} to {most}")
        else:
            erasures = [one for one in range(least, most + 1) if one in history.erasures]
            if not erasures:
                raise Wrong(f"{name} of {history.number}: nothing between {least} and {most}")
            version = erasures[0]
        self._seen[history.number] = version


def _of_spans(uow: UnitOfWork, history: History) -> set[int]:
    cache = cast(StoragePool, uow.source).cache
    hits = cache.stats().kinds["traces"].hits
    try:
        spans = uow.traces.get_spans(history.key, with_events=True)
    except NotFound:
        return set()
    if spans and len(spans) != _SPANS:
        raise Wrong(f"{len(spans)} spans")
    told = {span.attributes["version"] for span in spans}
    told |= {span.total_tokens or 0 for span in spans}
    of_events = {int(event.name.split()[1]) for span in spans for event in span.events}
    # Without the cache another statement reads the events, and a commit may be between the two.
    is_cached = cache.stats().kinds["traces"].hits > hits
    if is_cached or len(of_events) > 1 or min(of_events, default=0) < min(told, default=0):
        return told | of_events
    return told


def _of_statistics(uow: UnitOfWork, history: History) -> set[int]:
    start = START + history.number * DAY
    found = uow.traces.get_stats(
        group_by=("service_name", "operation"),
        service_name=history.service,
        start_time=start,
        end_time=start + timedelta(hours=1),
    )
    told = {int(one.group["operation"].split()[1]) for one in found}  # type: ignore[union-attr]
    return told | {(one.total_tokens or 0) // _SPANS for one in found}


def _of_costs(uow: UnitOfWork, history: History) -> set[int]:
    start = START + history.number * DAY
    found = uow.metrics.get_cost_summary(
        start, start + timedelta(hours=1), service_name=history.service
    )
    return {int((one.total_cost_usd or 0) / _SPANS) for one in found}


def _of_names(uow: UnitOfWork, history: History) -> set[int]:
    return {int(one.name.split()[1]) for one in uow.traces.operations(history.service)}


_READS: Final[dict[str, Callable[[UnitOfWork, History], set[int]]]] = {
    "spans": _of_spans,
    "statistics": _of_statistics,
    "costs": _of_costs,
    "names": _of_names,
}


def run(
    make: Callable[[], StoragePool],
    writers: int,
    readers: int,
    secs: float,
    is_enough: Callable[[list[Writer]], bool],
) -> tuple[list[Writer], list[Reader]]:
    """Let writers and readers work, each with a pool of its own.

    Args:
        make: makes a pool.
        writers, readers: how many there are.
        secs: how long they work at least.
        is_enough: whether they have done enough. They go on until it says so, for a minute at most.

    Raises:
        Wrong: a reader has seen what it must not see.
    """
    stop = threading.Event()
    histories = [History(number) for number in range(1, writers * _TRACES_A_WRITER + 1)]
    writing = [Writer(make(), histories[number::writers], stop) for number in range(writers)]
    reading = [Reader(number, make(), histories, stop) for number in range(readers)]
    threads: list[Writer | Reader] = [*writing, *reading]
    for thread in threads:
        thread.start()
    least, most = time.monotonic() + secs, time.monotonic() + secs + 60
    while not any(thread.error for thread in threads):
        now = time.monotonic()
        if now > most or (now > least and is_enough(writing)):
            break
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    for thread in threads:
        if thread.error is not None:
            raise thread.error
    return writing, reading
