"""The Prometheus hook in one process."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import ExitStack

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry

from observatory_storage import ingest_traces
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.errors import PoolError, ValidationError
from observatory_storage.hooks import PrometheusHook
from observatory_storage.operations import StoreOperation
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, LogWriter, TraceWriter, WriterConfig
from tests.observing.metrics_text import Samples, samples, value
from tests.otlp.samples import span_request
from tests.servers import Server
from tests.writers.helpers import ONCE, a_log, a_span, a_trace, eventually

PATIENT = WriterConfig(flush_interval_secs=None)


@pytest.fixture
def hook(pool: StoragePool) -> PrometheusHook:
    hook = PrometheusHook(CollectorRegistry(), refresh_secs=0)
    pool.add_hook(hook)
    return hook


def scraped(hook: PrometheusHook) -> Samples:
    return samples(hook.exposition()[0])


def test_a_flush_is_counted(pool: StoragePool, hook: PrometheusHook) -> None:
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_spans([a_span(number=n) for n in range(1, 21)])
        writer.write_trace(a_trace())
    found = scraped(hook)
    batch = {"operation": "flush", "table": "trace_spans"}
    written = {**batch, "method": "copy"}
    assert value(found, "storage_writes_total", **written, outcome="ok") == 1
    assert value(found, "storage_write_duration_seconds_count", **written) == 1
    assert value(found, "storage_batch_size_sum", **batch) == 21
    assert value(found, "storage_flushes_total", table="trace_spans", outcome="ok") == 1
    assert value(found, "storage_items_written_total", table="trace_spans") == 20
    assert value(found, "storage_items_written_total", table="traces") == 1
    assert (value(found, "storage_bytes_sent_total", table="trace_spans") or 0) > 400


def test_other_writes_are_no_flushes(pool: StoragePool, hook: PrometheusHook) -> None:
    CopyWriter(pool).write_logs([a_log(1), a_log(2)])
    ingest_traces(pool, span_request())
    found = scraped(hook)
    kinds = {dict(labels)["operation"] for name, labels in found if name == "storage_writes_total"}
    assert kinds == {"write", "ingest"}
    assert not any(name == "storage_flushes_total" for name, _ in found)


def test_queries_are_counted_by_method(pool: StoragePool, hook: PrometheusHook) -> None:
    CopyWriter(pool).write_logs([a_log(1), a_log(2)])
    with pool.unit_of_work() as uow:
        uow.logs.list()
        list(uow.logs.iterate())
        with pytest.raises(ValidationError):
            uow.logs.list(limit=-1)
    found = scraped(hook)
    for method, calls, rows in (("list", 2, 2), ("iterate", 1, 2)):
        labels = {"table": "logs", "method": method}
        assert value(found, "storage_query_duration_seconds_count", **labels) == calls
        assert value(found, "storage_query_result_count_sum", **labels) == rows
    failed = {"operation": "query", "outcome": "ValidationError"}
    assert value(found, "storage_errors_total", **failed) == 1


def test_connections_and_buffers_are_those_of_now(pool: StoragePool, hook: PrometheusHook) -> None:
    with LogWriter(pool, PATIENT) as writer:
        writer.write_logs([a_log(1), a_log(2), a_log(3)])
        with pool.engine.connect():
            busy = scraped(hook)
        assert value(busy, "storage_buffer_size", signal="logs") == 3
    idle = scraped(hook)
    assert value(busy, "storage_pool_connections", state="active") == 1
    assert value(idle, "storage_pool_connections", state="active") == 0
    assert value(idle, "storage_pool_connections", state="idle") == pool.stats().idle
    assert value(idle, "storage_pool_connections_max") == pool.stats().max
    assert value(idle, "storage_buffer_size", signal="logs") == 0
    assert (value(idle, "storage_connection_acquire_duration_seconds_count") or 0) >= 1


def test_retries_and_rejected_rows_are_counted(hook: PrometheusHook) -> None:
    hook.on_operation(StoreOperation("flush", "logs", "copy", retries=2, rows=5, rejected=1))
    found = scraped(hook)
    assert value(found, "storage_retries_total", operation="flush", table="logs") == 2
    assert value(found, "storage_items_rejected_total", table="logs") == 1
    assert value(found, "storage_batch_size_sum", operation="flush", table="logs") == 6


def test_spooled_rows_are_not_written(hook: PrometheusHook) -> None:
    hook.on_operation(StoreOperation("flush", "logs", "copy", "spooled", rows=5))
    found = scraped(hook)
    assert value(found, "storage_flushes_total", table="logs", outcome="spooled") == 1
    assert value(found, "storage_items_written_total", table="logs") is None
    assert not any(name == "storage_errors_total" for name, _ in found)


@pytest.mark.parametrize(
    ("outcome", "label"), [("hit", "hit"), ("miss", "miss"), ("CacheError", "error")]
)
def test_requests_to_a_cache_are_counted(hook: PrometheusHook, outcome: str, label: str) -> None:
    hook.on_operation(StoreOperation("cache", "traces", "get", outcome))
    found = scraped(hook)
    assert value(found, "storage_cache_requests_total", kind="get", outcome=label) == 1
    failed = value(found, "storage_errors_total", operation="cache", outcome="CacheError")
    assert (failed == 1) is (label == "error")


def test_partitions_and_the_last_maintenance_are_told(
    pool: StoragePool, hook: PrometheusHook
) -> None:
    before = scraped(hook)
    assert value(before, "storage_maintenance_age_seconds", schema="public") is None
    began = time.monotonic()
    pool.maintain()
    found = scraped(hook)
    age = value(found, "storage_maintenance_age_seconds", schema="public")
    assert age is not None
    assert 0 <= age <= time.monotonic() - began + 1
    assert value(found, "storage_maintenance_failed_steps", schema="public") == 0
    with pool.engine.connect() as connection:
        sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.logs'::regclass"
        partitions = connection.exec_driver_sql(sql).scalar_one()
    assert partitions > 1
    assert value(found, "storage_partitions", schema="public", table="logs") == partitions
    step = {"method": "make_partitions_ahead"}
    assert value(found, "storage_maintenance_step_duration_seconds_count", **step) == 1


def test_what_the_database_says_is_kept_for_a_while(pool: StoragePool) -> None:
    hook = PrometheusHook(CollectorRegistry(), refresh_secs=3600)
    pool.add_hook(hook)
    CopyWriter(pool).write_logs([a_log()])
    assert value(scraped(hook), "storage_partitions", schema="public", table="logs")
    pool.close()
    assert value(scraped(hook), "storage_partitions", schema="public", table="logs")


def test_a_scrape_goes_on_without_the_database(caplog: pytest.LogCaptureFixture) -> None:
    hook = PrometheusHook(CollectorRegistry())
    config = StorageConfig(postgres=PostgresConfig(host="127.0.0.1", port=1), retry=ONCE)
    with StoragePool(config, connect=False, hooks=[hook]), caplog.at_level(logging.WARNING):
        found = scraped(hook)
        assert value(found, "storage_pool_connections", state="idle") == 0
        assert not any(name == "storage_partitions" for name, _ in found)
        assert value(scraped(hook), "storage_scrape_errors_total") in (1, 2)
    assert "the state of the store is not known" in caplog.text


def test_a_scrape_does_not_wait_for_a_lock(pool: StoragePool) -> None:
    hook = PrometheusHook(CollectorRegistry(), refresh_secs=0, timeout_secs=0.5)
    pool.add_hook(hook)
    CopyWriter(pool).write_logs([a_log()])
    with pool.engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE maintenance_runs")
        locked = scraped(hook)
    assert not any(name == "storage_partitions" for name, _ in locked)
    assert value(scraped(hook), "storage_partitions", schema="public", table="logs") == 1


def test_a_scrape_does_not_wait_for_a_server_that_hangs(
    pool: StoragePool, postgres_server: Server
) -> None:
    if not postgres_server.embedded:
        pytest.skip("the processes of a given server are not ours to stop")
    hook = PrometheusHook(CollectorRegistry(), refresh_secs=0, timeout_secs=0.2)
    pool.add_hook(hook)
    CopyWriter(pool).write_logs([a_log()])
    backends = backends_of(pool)
    for backend in backends:
        os.kill(backend, signal.SIGSTOP)
    try:
        hanging = [scraped(hook), scraped(hook)]
    finally:
        for backend in backends:
            os.kill(backend, signal.SIGCONT)
    for found in hanging:
        assert not any(name == "storage_partitions" for name, _ in found)
    # Both scrapes waited for the same thread.
    assert value(hanging[1], "storage_pool_connections", state="active") == 1
    eventually(
        lambda: value(scraped(hook), "storage_partitions", schema="public", table="logs") == 1
    )


def backends_of(pool: StoragePool) -> list[int]:
    """The processes of the server that serve the open connections of the pool."""
    with ExitStack() as stack:
        taken = [stack.enter_context(pool.engine.connect()) for _ in range(pool.stats().size)]
        return [each.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() for each in taken]


def test_a_scrape_takes_no_connection_that_others_wait_for(database_url: str) -> None:
    hook = PrometheusHook(CollectorRegistry(), timeout_secs=0.5)
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, min_connections=1, acquire_timeout_secs=60),
    )
    with StoragePool(config, hooks=[hook]) as pool, pool.engine.connect():
        found = scraped(hook)
    assert value(found, "storage_pool_connections", state="active") == 1
    assert not any(name == "storage_partitions" for name, _ in found)


def test_a_scrape_is_no_operation(pool: StoragePool, hook: PrometheusHook) -> None:
    name = "storage_connection_acquire_duration_seconds_count"
    first = value(scraped(hook), name)
    assert value(scraped(hook), name) == first


def test_one_hook_serves_two_pools(database_url: str, pool: StoragePool) -> None:
    hook = PrometheusHook(CollectorRegistry())
    pool.add_hook(hook)
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with StoragePool(config, hooks=[hook]) as other:
        CopyWriter(pool).write_logs([a_log(1)])
        CopyWriter(other).write_logs([a_log(2)])
        found = scraped(hook)
    assert value(found, "storage_items_written_total", table="logs") == 2
    open_ones = pool.stats().size + config.pool.min_connections
    states = [value(found, "storage_pool_connections", state=one) for one in ("idle", "active")]
    assert sum(one or 0 for one in states) >= open_ones - 1


def test_a_pool_replaces_a_closed_one_of_its_schema(database_url: str) -> None:
    hook = PrometheusHook(CollectorRegistry(), refresh_secs=0)
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with StoragePool(config, hooks=[hook]) as closed:
        CopyWriter(closed).write_logs([a_log()])
    with StoragePool(config, hooks=[hook]):
        assert value(scraped(hook), "storage_partitions", schema="public", table="logs") == 1


def test_the_default_registry_is_that_of_the_client(pool: StoragePool) -> None:
    hook = PrometheusHook()
    try:
        pool.add_hook(hook)
        CopyWriter(pool).write_logs([a_log()])
        found = samples(prometheus_client.generate_latest())
    finally:
        for collector in set(prometheus_client.REGISTRY._collector_to_names):
            if "storage" in str(prometheus_client.REGISTRY._collector_to_names[collector]):
                prometheus_client.REGISTRY.unregister(collector)
    assert value(found, "storage_items_written_total", table="logs") == 1


def test_openmetrics_is_given_to_those_who_ask_for_it(hook: PrometheusHook) -> None:
    body, content_type = hook.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert hook.exposition()[1].startswith("text/plain")


@pytest.mark.parametrize("options", [{"refresh_secs": -1}, {"timeout_secs": 0}])
def test_seconds_are_checked(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(ValidationError, match=name):
        PrometheusHook(CollectorRegistry(), **options)


def test_a_pool_without_free_connections_is_an_error_of_acquiring(database_url: str) -> None:
    hook = PrometheusHook(CollectorRegistry())
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, min_connections=1, acquire_timeout_secs=0.05),
    )
    with (
        StoragePool(config, hooks=[hook]) as pool,
        pool.engine.connect(),
        pytest.raises(PoolError),
    ):
        pool.engine.connect()
    failed = {"operation": "acquire", "outcome": "PoolError"}
    assert value(scraped(hook), "storage_errors_total", **failed) == 1
