"""A condition on the time of a view prunes partitions and uses the indexes of its tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from tests import citus
from tests.repositories.populated import analyse
from tests.repositories.samples import DAY, a_log, a_span, an_event, trace_key
from tests.servers import Server

pytestmark = citus.not_there("shards have plans of their own")

_DAYS, _DAY = 6, 2
_FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - _DAYS * DAY
_SPANS = 9_000
_STEP = _DAYS * DAY / _SPANS
# View -> the partitioned table that it reads, and the column with the time of a row.
TIMES = {
    "observatory_span_facts": ("trace_spans", "start_time"),
    "observatory_spans": ("trace_spans", "start_time"),
    "observatory_errors": ("trace_spans", "start_time"),
    "observatory_events": ("trace_events", "span_start_time"),
    "observatory_logs": ("logs", "timestamp"),
    "observatory_data_points": ("metric_data_points", "timestamp"),
}


def fill(pool: StoragePool) -> None:
    """Write six days of telemetry, and have all tables analysed."""
    writer = CopyWriter(pool)
    writer.write_spans(
        a_span(
            n // 5 + 1,
            n + 1,
            _FIRST + n * _STEP,
            service_name=f"service{n % 7}",
            status="error" if n % 50 == 0 else "ok",
            session_id=f"session{n // 20}",
            model=f"model{n % 3}",
            total_tokens=n,
            attributes={"text": "x" * 200},
            events=[an_event()] if n % 5 == 0 else [],
        )
        for n in range(_SPANS)
    )
    writer.write_logs(a_log(n + 1, _FIRST + n * _STEP, body="x" * 200) for n in range(_SPANS))
    writer.write_metrics([{"name": "queue", "metric_type": "gauge", "service_name": "service"}])
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name("queue")
    writer.write_data_points(
        {"metric_id": metric.id, "timestamp": _FIRST + n * _STEP, "value": float(n)}
        for n in range(_SPANS)
    )
    analyse(pool)


@contextmanager
def filled_pool(server: Server, template: str) -> Iterator[StoragePool]:
    with server.database(template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            fill(pool)
            yield pool


@pytest.fixture(scope="module")
def filled(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """A pool on six days of telemetry without rollups, for this module."""
    with filled_pool(postgres_server, migrated_template) as pool:
        yield pool


@pytest.fixture
def rolled(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """The same, with rollups until six o'clock of the last day."""
    with filled_pool(postgres_server, migrated_template) as pool:
        refresh_rollups(Run(pool, now=_FIRST + (_DAYS - 1) * DAY + DAY / 4))
        yield pool


def partitions(table: str, days: range = range(_DAYS)) -> set[str]:
    return {f"{table}_p{_FIRST + day * DAY:%Y%m%d}" for day in days}


def run(pool: StoragePool, query: str, zone: str = "UTC") -> list[dict[str, Any]]:
    """The scans that took place when the query ran: node types, relations and indexes."""
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL TimeZone = '{zone}'")
        explain = sa.text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) {query}")
        document = connection.scalar(explain)
    plan = (json.loads(document) if isinstance(document, str) else document)[0]["Plan"]
    return [node for node in _nodes(plan) if "Relation Name" in node and node["Actual Loops"]]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def of_table(scans: list[dict[str, Any]], table: str) -> set[str]:
    """The partitions of the table that were read."""
    return {
        scan["Relation Name"] for scan in scans if scan["Relation Name"].startswith(f"{table}_p")
    }


def bounds(column: str) -> str:
    start = _FIRST + _DAY * DAY
    return (
        f"{column} >= '{start.isoformat()}' AND {column} < '{(start + DAY).isoformat()}'"
    ).replace(":00+", "\\:00+")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("view", TIMES)
def test_a_day_prunes_partitions(filled: StoragePool, view: str, zone: str) -> None:
    table, column = TIMES[view]
    scans = run(filled, f"SELECT * FROM {view} WHERE {bounds(column)}", zone)
    assert of_table(scans, table) == partitions(table, range(_DAY, _DAY + 1))


def test_an_hour_of_errors_uses_their_index(filled: StoragePool) -> None:
    start = (_FIRST + _DAY * DAY).isoformat().replace(":00+", "\\:00+")
    query = (
        "SELECT * FROM observatory_errors WHERE service_name = 'service3' AND start_time >="
        f" '{start}' AND start_time < timestamptz '{start}' + interval '1 hour'"
    )
    (scan,) = [scan for scan in run(filled, query) if "spans" in scan["Relation Name"]]
    assert scan["Node Type"] != "Seq Scan"


def test_a_day_of_sessions_reads_the_spans_of_that_day_and_looks_up_others(
    filled: StoragePool,
) -> None:
    scans = run(filled, f"SELECT * FROM observatory_sessions WHERE {bounds('last_start_time')}")
    by_index = [
        scan
        for scan in scans
        if "session_id" in scan.get("Index Name", "") or scan["Node Type"] == "Bitmap Heap Scan"
    ]
    walked = [scan for scan in scans if scan not in by_index]
    assert of_table(walked, "trace_spans") == partitions("trace_spans", range(_DAY, _DAY + 1))
    assert of_table(by_index, "trace_spans") > of_table(walked, "trace_spans")


def test_one_session_is_found_by_its_index(filled: StoragePool) -> None:
    query = "SELECT * FROM observatory_sessions WHERE session_id = 'session77'"
    scans = run(filled, query)
    assert of_table(scans, "trace_spans")
    assert {scan["Node Type"] for scan in scans} <= {
        "Index Scan",
        "Index Only Scan",
        "Bitmap Heap Scan",
    }


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_day_of_costs_prunes_partitions(filled: StoragePool, zone: str) -> None:
    day = (_FIRST + _DAY * DAY).date()
    query = f"SELECT sum(total_cost_usd) FROM observatory_costs_by_day WHERE day = '{day}'"
    scans = run(filled, query, zone)
    # The days are found by reading the first start of each, from an index alone.
    read = [scan for scan in scans if scan["Node Type"] != "Index Only Scan"]
    assert of_table(read, "trace_spans") == partitions("trace_spans", range(_DAY, _DAY + 1))
    found = [scan for scan in scans if scan not in read]
    assert all(scan["Actual Rows"] <= 1 for scan in found)


def test_costs_of_days_with_rollups_are_read_from_these(rolled: StoragePool) -> None:
    last = (_FIRST + (_DAYS - 1) * DAY).date()
    scans = run(rolled, f"SELECT * FROM observatory_costs_by_day WHERE day < '{last}'")
    # In the marked range an index tells which days have spans.
    read = [scan for scan in scans if scan["Node Type"] != "Index Only Scan"]
    assert of_table(read, "trace_spans") == set()
    assert "span_rollups_day" in {scan["Relation Name"] for scan in scans}
    scans = run(rolled, "SELECT * FROM observatory_costs_by_day")
    assert of_table(scans, "trace_spans") == partitions("trace_spans", range(_DAYS - 1, _DAYS))


@pytest.mark.parametrize(
    "view", ["observatory_span_facts", "observatory_spans", "observatory_events"]
)
def test_a_trace_is_found_by_its_key(filled: StoragePool, view: str) -> None:
    query = f"SELECT * FROM {view} WHERE trace_id = '{trace_key(77)}'"
    scans = run(filled, query)
    assert scans
    assert all("pkey" in scan.get("Index Name", "") for scan in scans)


def test_traces_of_a_day_use_the_index_of_starts(filled: StoragePool) -> None:
    start = (_FIRST + _DAY * DAY).isoformat().replace(":00+", "\\:00+")
    query = f"SELECT * FROM observatory_traces WHERE start_time >= '{start}' ORDER BY start_time"
    (scan,) = run(filled, f"{query} LIMIT 10")
    assert scan["Index Name"] == "ix_traces_start_time"
