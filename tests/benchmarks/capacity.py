"""``python -m tests.benchmarks.capacity``: what Citus costs, beside one server on the same machine.

Each server is that of a URL, and gets a database of its own, which is dropped at the end. That of a
coordinator is created on its workers as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

import sqlalchemy as sa
from rich.console import Console

from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from observatory_storage.config import RetentionConfig
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.run import Run
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.machine import machine_description
from tests.benchmarks.output import Output
from tests.benchmarks.reading.closing import close_partitions
from tests.benchmarks.reading.dataset import DAY, Dataset, Sizes
from tests.benchmarks.reading.spans import SERVICES
from tests.citus import CitusServer
from tests.servers import Server

__all__ = ["main"]

_SPANS_A_TRACE: Final = 10
_PAGE: Final = 50
_TIMES: Final = 15
_WIDTH: Final = 120


@dataclass(frozen=True)
class _Plan:
    """What is written: the spans of a few traces again and again, with other ids and times.

    Making each span anew would take as long as writing it, on the machine that is measured.
    """

    url: str
    layout: Literal["plain", "citus"]
    shards: int
    first_day: datetime
    days: int
    batch: int
    batches: int

    def pool(self) -> StoragePool:
        postgres = PostgresConfig.from_url(self.url, layout=self.layout, shard_count=self.shards)
        return StoragePool(StorageConfig(postgres=postgres))

    @property
    def spans(self) -> int:
        return self.batch * self.batches

    @property
    def end(self) -> datetime:
        return self.first_day + self.days * DAY

    def trace_id(self, batch: int, number: int) -> str:
        return f"{batch + 1:08x}{number + 1:024x}"

    def rows(self, batch: int) -> list[dict[str, Any]]:
        """The spans of a batch, which are minutes of one day."""
        day, of_day = divmod(batch, self.batches // self.days)
        moved = day * DAY + of_day * (DAY / (self.batches // self.days))
        rows = []
        for number, spans in enumerate(_templates(self.first_day, self.batch, self.batches)):
            trace_id = self.trace_id(batch, number)
            for span in spans:
                times = {name: span[name] + moved for name in ("start_time", "end_time")}
                rows.append({**span, "trace_id": trace_id, **times})
        return rows


@cache
def _templates(first_day: datetime, batch: int, batches: int) -> list[list[dict[str, Any]]]:
    traces = batch // _SPANS_A_TRACE
    data = Dataset(Sizes(batch, traces, traces, 1, 1), first_day)
    # A batch lasts its share of the days, so that the end of a day is not reached.
    found = [data.trace(number).spans for number in range(traces)]
    for spans in found:
        into_day = spans[0]["start_time"] - first_day
        earlier = into_day - into_day / batches
        for span in spans:
            span["start_time"] -= earlier
            span["end_time"] -= earlier
    return found


def main() -> None:
    """Write to both servers and ask them, one after the other, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", metavar="URL", help="one server")
    parser.add_argument("--citus", metavar="URL", help="a coordinator that has its workers")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--batch", type=int, default=20_000, help="spans in a transaction")
    parser.add_argument("--writers", type=int, default=4, help="processes")
    given = parser.parse_args()
    out = Output(Console(highlight=False, width=_WIDTH))
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    results = {}
    for layout in ("plain", "citus"):
        if (server := getattr(given, layout)) is None:
            continue
        with _database(server, layout) as url:
            batches = given.spans // given.batch
            first = today - given.days * DAY
            plan = _Plan(url, layout, given.shards, first, given.days, given.batch, batches)
            results[layout] = _measured(plan, given.writers, out)
    names = next(iter(results.values()))
    rows = [(name, *(found.get(name, "") for found in results.values())) for name in names]
    title = f"{given.spans:,} spans, {given.writers} writers, {given.batch:,} spans a batch"
    out.table(title, ("", *results), rows)


@contextmanager
def _database(url: str, layout: str) -> Iterator[str]:
    kind = CitusServer if layout == "citus" else Server
    with kind(url, embedded=False).database("template0") as made:
        yield made


def _measured(plan: _Plan, writers: int, out: Output) -> dict[str, str]:
    found: dict[str, str] = {}

    def tell(name: str, value: str) -> None:
        found[name] = value
        out.say(f"{plan.layout}: {name}: {value}")

    with plan.pool() as pool:
        pool.run_migrations()
        machine = machine_description(pool, embedded=False)
        out.say(json.dumps({**machine, "server": plan.layout}, indent=1))
        began = time.perf_counter()
        pool.partitions.cover("trace_spans", plan.first_day, plan.end - timedelta(seconds=1))
        tell("one partition is made in", f"{_ms(began) / plan.days:,.0f} ms")
        pool.partitions.cover("trace_events", plan.first_day, plan.end - timedelta(seconds=1))
        seconds = _write(plan, writers)
        tell("spans a second", f"{plan.spans / seconds:,.0f}")
        day = f"trace_spans_p{plan.first_day:%Y%m%d}"
        rows = plan.spans / plan.days
        tell("bytes of a span, open day", f"{_size(pool, plan.layout, day) / rows:,.0f}")
        began = time.perf_counter()
        close_partitions(pool, plan.first_day + DAY)
        tell("a day is closed in", f"{_ms(began) / 1000:,.0f} s")
        tell("bytes of a span, closed day", f"{_size(pool, plan.layout, day) / rows:,.0f}")
        traces = _size(pool, plan.layout, "traces") / plan.spans
        tell("bytes of its trace, for each span", f"{traces:,.0f}")
        with pool.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("ANALYZE")
        for name, ask in _questions(plan).items():
            tell(name, f"{_asked(pool, ask):,.1f} ms")
            if plan.layout == "citus":
                out.say(f"  tasks of its statements: {', '.join(_tasks(pool, ask))}")
        began = time.perf_counter()
        config = RetentionConfig(traces=(plan.days - 1) * DAY)
        gone = apply_retention(Run(pool, datetime.now(UTC)), config=config)
        tell("retention of a day", f"{_ms(began) / 1000:,.1f} s")
        out.say(f"  {gone.traces:,} traces, {sum(one.rows for one in gone.partitions):,} rows")
    return found


def _write(plan: _Plan, writers: int) -> float:
    """Write all batches; return the seconds, without the start of the processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(writers, context, initializer=_prepare, initargs=(plan,)) as executor:
        list(executor.map(_ready, range(writers * 8)))
        began = time.perf_counter()
        for _ in executor.map(_write_batch, range(plan.batches)):
            pass
        return time.perf_counter() - began


_pool: StoragePool
_plan: _Plan


def _prepare(plan: _Plan) -> None:
    global _pool, _plan
    _pool, _plan = plan.pool(), plan
    plan.rows(0)


def _ready(_: int) -> None:
    time.sleep(0.1)


def _write_batch(batch: int) -> None:
    CopyWriter(_pool).write_spans(_plan.rows(batch))


Ask = Callable[[UnitOfWork], object]


def _questions(plan: _Plan) -> dict[str, Ask]:
    trace_id = plan.trace_id(plan.batches // 2, 7)
    first, end = plan.first_day, plan.end
    return {
        f"the {_PAGE} newest traces": lambda uow: uow.traces.list(limit=_PAGE),
        f"the {_PAGE} newest traces of a service": lambda uow: uow.traces.list(
            service_name=SERVICES[0], limit=_PAGE
        ),
        "a trace by its id, with its spans": lambda uow: (
            uow.traces.get(trace_id),
            uow.traces.get_spans(trace_id),
        ),
        "cost by day, of all days, without rollups": lambda uow: uow.metrics.get_cost_summary(
            start_time=first, end_time=end, group_by="model", bucket_size_secs=86_400
        ),
    }


def _asked(pool: StoragePool, ask: Ask) -> float:
    """The median in milliseconds; of few times if one takes seconds."""
    took: list[float] = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        with pool.unit_of_work() as uow:
            ask(uow)
        took.append(_ms(began))
        if sum(took) > 30_000:
            break
    return statistics.median(took[1:] or took)


def _tasks(pool: StoragePool, ask: Ask) -> list[str]:
    """For each statement, how many shards' tasks its plan has, and its parts at the coordinator."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            seen.append((statement, parameters))

    sa.event.listen(pool.engine, "before_cursor_execute", note)
    try:
        with pool.unit_of_work() as uow:
            ask(uow)
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", note)
    found = []
    with pool.engine.connect() as connection:
        for statement, parameters in seen:
            lines = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
            plan = "\n".join(lines)
            tasks = re.findall(r"Task Count: (\d+)", plan)
            if tasks:
                parts = plan.count("Distributed Subplan")
                found.append("+".join(tasks) + (f" ({parts} subplans)" if parts else ""))
    return found


def _size(pool: StoragePool, layout: str, table: str) -> int:
    function = "citus_total_relation_size" if layout == "citus" else "pg_total_relation_size"
    with pool.engine.connect() as connection:
        query = f"SELECT {function}('{table}')"
        return int(connection.exec_driver_sql(query).scalar_one())


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
