"""A pool whose Prometheus hook has been told of everything that it can be told of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from observatory_storage import ingest_traces
from observatory_storage.errors import ValidationError
from observatory_storage.hooks import PrometheusHook
from observatory_storage.operations import StoreOperation
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, LogWriter, TraceWriter, WriterConfig
from tests.otlp.samples import span_request
from tests.writers.helpers import a_log, a_span

__all__ = ["use", "used"]

# What a healthy store does not tell, or a part that a pool does not have.
_SELDOM = (
    StoreOperation("flush", "logs", "copy", retries=1, rejected=1),
    StoreOperation("cache", "traces", "get", "hit"),
    StoreOperation("cache", "traces", "get", "miss"),
)


@contextmanager
def used(pool: StoragePool) -> Iterator[tuple[StoragePool, PrometheusHook]]:
    """The pool with a hook, after it was used once. A writer has rows in its buffer."""
    hook = PrometheusHook(CollectorRegistry(), refresh_secs=0.5)
    pool.add_hook(hook)
    with LogWriter(pool, WriterConfig(flush_interval_secs=None)) as writer:
        writer.write_log(a_log())
        use(pool)
        yield pool, hook


def use(pool: StoragePool) -> None:
    """Write by every way, read, fail and maintain."""
    with TraceWriter(pool) as writer:
        writer.write_span(a_span())
    CopyWriter(pool).write_logs([a_log(1), a_log(2)])
    ingest_traces(pool, span_request())
    with pool.unit_of_work() as uow:
        uow.traces.list()
        uow.logs.list()
        with pytest.raises(ValidationError):
            uow.logs.list(limit=-1)
    pool.maintain()
    for operation in _SELDOM:
        pool.hooks.emit(operation)
