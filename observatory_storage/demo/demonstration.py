"""Runs the demo from its first trace to the comparison of counts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from observatory_storage import StoragePool
from observatory_storage.demo.application import Application
from observatory_storage.demo.counts import Counts, differences
from observatory_storage.demo.outbox import Outbox
from observatory_storage.demo.questions import ask
from observatory_storage.demo.stored import stored_counts
from observatory_storage.demo.traffic import DAYS
from observatory_storage.wording import counted

__all__ = ["emit", "run"]

_DAY = timedelta(days=1)


def run(pool: StoragePool, console: Console, *, traces: int, seed: int) -> list[str]:
    """Run the demo. Returns one line for each difference between emitted and stored counts."""
    end = datetime.now(UTC)
    began = time.perf_counter()
    emitted = emit(pool, console, traces=traces, seed=seed, until=end)
    secs = time.perf_counter() - began
    found_counts = (
        (len(emitted.traces), "trace"),
        (emitted.spans["spans"], "span"),
        (emitted.spans["events"], "event"),
        (emitted.logs["records"], "log record"),
        (sum(emitted.points.values()), "data point"),
    )
    counts = ", ".join(counted(*one) for one in found_counts)
    console.print(
        Text(f"{counts} of {DAYS} simulated days, stored in {secs:.1f} s"), soft_wrap=True
    )
    # A day more on both sides, since some traces end after the last request.
    ask(pool, console, end - (DAYS + 1) * _DAY, end + _DAY)
    with pool.unit_of_work() as work:
        found = differences(emitted, stored_counts(work.session))
    if len(emitted.traces) != traces:
        found.append(f"{counted(len(emitted.traces), 'trace')} emitted, not {traces}")
    return found


def emit(pool: StoragePool, console: Console, *, traces: int, seed: int, until: datetime) -> Counts:
    """Run the application and store its telemetry. Returns the counts of what it emitted.

    Raises:
        StorageError: the storage refused a request or a part of it.
    """
    outbox = Outbox()
    application = Application(
        outbox, traces=traces, until=round(until.timestamp() * 1e9), seed=seed
    )
    # Shown on a terminal only, and removed at the end.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("running the application", total=traces)
        try:
            for served in application.run():
                if outbox.is_full():
                    outbox.send(pool)
                progress.update(task, completed=served)
        finally:
            application.shutdown()
        outbox.send(pool)
    return outbox.emitted.counts()
