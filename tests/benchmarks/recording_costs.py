"""Measures what a log record, an observed call and an observed step cost the application.

The CPU time of the calling thread is what the application waits for. The CPU time of the process
has the threads that write too.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final

from rich.console import Console

from observatory_storage import (
    StorageHandler,
    StoragePool,
    observe,
    observe_llm,
)
from observatory_storage.recording.shared_writer import writer_of
from tests.benchmarks.measure import migrated_pool, own_heap_frozen
from tests.benchmarks.output import Output

__all__ = ["main"]

_PROMPT: Final = "What is a pen?"
# Its name, and a call.
Case = tuple[str, Callable[[], object]]


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the medians of the calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each case")
    parser.add_argument("--calls", type=int, default=500, help="calls in a round")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    with (
        migrated_pool() as pool,
        _logger(StorageHandler(pool, service_name="shop")) as (logger, handler),
    ):
        out.say(f"median of {arguments.rounds} rounds of {arguments.calls} calls")

        def flush() -> None:
            handler.flush()
            writer_of(pool).flush()

        for case in _cases(pool, logger):
            _measure(out, case, arguments.rounds, arguments.calls, flush)


@contextmanager
def _logger(handler: StorageHandler) -> Iterator[tuple[logging.Logger, StorageHandler]]:
    logger = logging.getLogger("benchmark.recording")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger, handler
    finally:
        logger.removeHandler(handler)
        handler.close()


def _cases(pool: StoragePool, logger: logging.Logger) -> Iterator[Case]:
    @observe_llm(pool, provider="openai", model="gpt-5")
    def ask(prompt: str) -> str:
        return "A tool for writing."

    @observe(pool, kind="tool")
    def weather(city: str) -> dict[str, int]:
        return {"celsius": 21}

    def block() -> None:
        with observe(pool, name="step"):
            pass

    yield "a log record", lambda: logger.info("order %s is late", "A-1")
    yield (
        "a log record with two fields",
        lambda: logger.info("order %s is late", "A-1", extra={"customer": 42, "shelf": "b"}),
    )
    yield "a decorated call to a model", lambda: ask(_PROMPT)
    yield "a decorated tool", lambda: weather("Bern")
    yield "a step in a block", block


def _measure(out: Output, case: Case, rounds: int, calls: int, flush: Callable[[], object]) -> None:
    name, call = case
    own: list[float] = []
    whole: list[float] = []
    with own_heap_frozen():
        for number in range(rounds + 1):
            process, thread = time.process_time(), time.thread_time()
            for _ in range(calls):
                call()
            thread = time.thread_time() - thread
            flush()
            process = time.process_time() - process
            if number:  # the first round warms up
                own.append(thread / calls * 1e6)
                whole.append(process / calls * 1e6)
    out.say(f"  {name:30} {median(own):8.1f} µs CPU of the caller {median(whole):8.1f} µs in all")


if __name__ == "__main__":
    main()
