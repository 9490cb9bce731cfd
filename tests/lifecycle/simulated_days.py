"""Days of telemetry with a moving clock, and what a store must have at the end of each of them."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.layout import PARTITIONED
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.lifecycle.days import oddities, partitions
from tests.writers.helpers import span_id, trace_id

__all__ = ["SimulatedDays"]

DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_MODELS: Final = ("gpt-4o", "claude-sonnet-4-5", None)
_Row = dict[str, Any]


@dataclass
class SimulatedDays:
    """Writes day after day, calls `maintain` with the day's times, and knows what must be stored.

    Args:
        pool: its configuration keeps traces for `kept_days`, and logs and points for as long.
        url: the database of the pool.
        first: the first midnight.
        kept_days: how many days are kept.
        traces_a_day: the number of traces that begin on a day; each has up to six spans.
    """

    pool: StoragePool
    url: str
    first: datetime
    kept_days: int
    traces_a_day: int
    random: random.Random = field(default_factory=lambda: random.Random(13))
    spans: dict[str, list[_Row]] = field(default_factory=dict)
    logs: list[datetime] = field(default_factory=list)
    bytes_by_day: list[int] = field(default_factory=list)
    write_secs: list[float] = field(default_factory=list)

    def run_day(self, number: int, *, runs: int = 3) -> None:
        """Write a day in parts, maintain the store after each, and compare it at the end."""
        midnight = self.first + number * DAY
        if number == 0:
            self.pool.maintain(now=midnight)
        rows = self._rows_of(number)
        logs = [midnight + self.random.random() * DAY for _ in range(self.traces_a_day)]
        self.logs += logs
        written = 0.0
        for part in range(runs):
            begun = time.perf_counter()
            self._write(rows[part::runs], logs[part::runs])
            written += time.perf_counter() - begun
            self.pool.maintain(now=midnight + DAY * (part + 1) / runs + timedelta(minutes=5))
        self.write_secs.append(written)
        self.check(midnight + DAY + timedelta(minutes=5))

    def check(self, now: datetime) -> None:
        """Compare the stored rows, the rollups and the partitions with what they must be."""
        cutoff = (now - self.kept_days * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
        self.spans = {
            trace: spans
            for trace, spans in self.spans.items()
            if max(span["start_time"] for span in spans) >= cutoff
        }
        kept = [span for spans in self.spans.values() for span in spans]
        assert oddities(self.url) == {}
        with self.pool.unit_of_work() as work:
            stored = work.traces.get_stats()
            assert (stored.trace_count, stored.span_count) == (len(self.spans), len(kept))
            assert work.logs.get_stats().log_count == sum(log >= cutoff for log in self.logs)
            # What rollups answer is what the spans would, wherever all spans are stored.
            for bucket in ("day", 3600):
                told, counted = (
                    work.metrics.get_cost_summary(
                        cutoff, now, group_by="model", bucket_size_secs=bucket, source=source
                    )
                    for source in ("auto", "raw")
                )
                assert [_of(one) for one in told] == [_of(one) for one in counted]
        for table in PARTITIONED:
            names = partitions(self.url, table)
            # Those that are kept, the present one, those ahead, and one with spans of traces that
            # began on the day before.
            assert len(names) <= self.kept_days + 8 + 3, names
        self.bytes_by_day.append(self._bytes())

    def _rows_of(self, number: int) -> list[_Row]:
        """The spans of a day. Some traces go on on the next day, and some spans come late."""
        midnight = self.first + number * DAY
        found: list[_Row] = []
        for place in range(self.traces_a_day):
            trace = trace_id(number * 1_000_000 + place + 1)
            start = midnight + self.random.random() * DAY
            if number and self.random.random() < 0.05:
                start -= 2 * _HOUR  # late: its partition may have been closed
            spans = [
                self._span(trace, index + 1, start + index * self.random.random() * _HOUR)
                for index in range(self.random.randint(1, 6))
            ]
            self.spans[trace] = spans
            found += spans
        again = self.random.sample(found, len(found) // 20)  # a sender that tries again
        return [*found, *again]

    def _span(self, trace: str, number: int, start: datetime) -> _Row:
        model = self.random.choice(_MODELS)
        usage: _Row = {}
        if model is not None:
            tokens = self.random.randint(1, 2000)
            usage = {"total_tokens": tokens, "total_cost_usd": Decimal(tokens) / 100_000}
        return {
            "trace_id": trace,
            "span_id": span_id(number),
            "name": "chat" if model else "step",
            "service_name": f"service-{number % 3}",
            "start_time": start,
            "end_time": start + timedelta(milliseconds=self.random.randint(1, 5000)),
            "status": "error" if self.random.random() < 0.05 else "ok",
            "model": model,
            "user_id": f"user-{self.random.randint(1, 20)}",
            "attributes": {"prompt": "word " * self.random.randint(1, 60)},
            **usage,
        }

    def _write(self, spans: Sequence[_Row], logs: Sequence[datetime]) -> None:
        writer = CopyWriter(self.pool)
        unique = {(span["trace_id"], span["span_id"]): span for span in spans}
        writer.write_spans(list(unique.values()))
        writer.write_logs(
            {"timestamp": time, "body": "said", "service_name": "service-1"} for time in logs
        )

    def _bytes(self) -> int:
        total = sa.text(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        )
        with self.pool.engine.connect() as connection:
            return int(connection.scalar(total))


def _of(summary: Any) -> tuple[Any, ...]:
    return (
        *(summary.timestamp, summary.model, summary.span_count, summary.unpriced_span_count),
        *(summary.total_tokens, summary.total_cost_usd),
    )
