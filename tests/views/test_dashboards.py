"""Every query of the dashboards runs on the migrated schema, and shows what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import CopyWriter
from tests import citus
from tests.repositories.samples import a_log, a_span
from tests.servers import FAST
from tests.views.grafana_queries import ALL, DASHBOARDS, QUERIES, Query, expanded, panels_of
from tests.views.view_rows import FACTS_ROLE, READER_ROLE
from tests.writers.helpers import quick_pool, trace_id

POSTGRES = "grafana-postgresql-datasource"
# The data sources whose queries a test runs.
# Those of Prometheus are run by tests/observing/test_store_dashboard.py.
RUN = {POSTGRES, "prometheus"}
OF_POSTGRES = [query for query in QUERIES if query.source == POSTGRES]
END = datetime.now(UTC)
START = END - timedelta(hours=6)
OLD = END - timedelta(days=20)
SERVICE = "chat's"
NOTHING_SELECTED = {"service": ALL, "model": ALL, "environment": ALL, "trace": ""}
SELECTED = {
    "service": [SERVICE, "other"],
    "model": ["gpt-4o"],
    "environment": ["production"],
    "trace": trace_id(1).upper(),
}
_HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, with the role that only reads, and telemetry in it."""
    if citus.URL:
        pytest.skip("a server without Citus")
    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        with quick_pool(server.url) as pool:
            pool.run_migrations()
            with psycopg.connect(server.url) as connection:
                connection.execute(READER_ROLE.encode())
                connection.execute(FACTS_ROLE.encode())
            writer = CopyWriter(pool)
            writer.write_spans([*calls(START + _HOUR), *calls(OLD, 100)])
            writer.write_logs([a_log(1, START + _HOUR, body="it's slow", trace_id=trace_id(1))])
        yield server


def calls(start: datetime, first: int = 0) -> Iterator[dict[str, Any]]:
    """Eight traces of a request and a call; every other call has no environment."""
    for n in range(1, 9):
        trace, begin = first + n, start + n * timedelta(minutes=7)
        common = {"service_name": SERVICE, "user_id": f"user{n % 3}", "session_id": f"s{n % 2}"}
        yield a_span(trace, trace * 10, begin, name="ask", **common)
        yield a_span(
            trace,
            trace * 10 + 1,
            begin + timedelta(milliseconds=5),
            parent_span_id=f"{trace * 10:016x}",
            name="chat gpt-4o",
            operation="chat",
            provider="openai",
            model="gpt-4o",
            prompt_tokens=90,
            completion_tokens=10,
            total_tokens=100,
            total_cost_usd=Decimal("0.25"),
            ttft_ms=120.0,
            environment="production" if n % 2 else None,
            status="error" if n == 1 else "ok",
            status_message="overloaded" if n == 1 else None,
            **common,
        )


def rows_of(
    server: EmbeddedPostgres,
    query: Query,
    values: dict[str, Any],
    zone: str = "UTC",
    role: str = "observatory_reader",
) -> tuple[list[str], list[tuple[Any, ...]]]:
    statement = expanded(query, values, START, END, "5m")
    with psycopg.connect(server.url, user=role) as connection:
        connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
        cursor = connection.execute(statement.encode())
        assert cursor.description is not None
        return [column.name for column in cursor.description], cursor.fetchall()


def test_every_query_is_of_a_data_source_whose_queries_are_run() -> None:
    assert {query.source for query in QUERIES} <= RUN
    assert len(OF_POSTGRES) > 20


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("values", [NOTHING_SELECTED, SELECTED], ids=["all", "selected"])
@pytest.mark.parametrize("query", OF_POSTGRES, ids=str)
def test_a_query_shows_what_is_stored(
    server: EmbeddedPostgres, query: Query, values: dict[str, Any], zone: str
) -> None:
    columns, rows = rows_of(server, query, values, zone)
    if "of the trace" in query.title and values is NOTHING_SELECTED:
        assert rows == []
    elif query.title == "Logs" and values is SELECTED:
        # The service of the record is not selected.
        assert rows == []
    else:
        assert rows
        assert any(value not in (None, 0) for row in rows for value in row)
    if query.format == "time_series":
        check_series(columns, rows)


def check_series(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    """Grafana makes series of these rows: by time, with one text that names them."""
    assert columns[0] == "time"
    times = [row[0] for row in rows]
    assert None not in times
    assert times == sorted(times)
    for name, values in list(zip(columns, zip(*rows, strict=True), strict=True))[1:]:
        kinds = {type(value) for value in values if value is not None}
        assert kinds <= ({str} if name == "metric" else {int, float, Decimal}), name
    keys = [(row[0], row[columns.index("metric")] if "metric" in columns else "") for row in rows]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("query", OF_POSTGRES, ids=str)
def test_a_query_runs_on_an_empty_schema(database_url: str, query: Query) -> None:
    statement = expanded(query, NOTHING_SELECTED, START, END, "1m")
    if citus.URL and any(view in statement for view in citus.REFUSED_VIEWS):
        pytest.skip("on Citus this view is refused")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(statement.encode()).fetchall()
    assert all(value in (None, 0) for row in rows for value in row)


@pytest.mark.parametrize("query", OF_POSTGRES, ids=str)
def test_a_query_reads_no_partition_outside_of_the_time_range(
    server: EmbeddedPostgres, query: Query
) -> None:
    statement = expanded(query, SELECTED, START, END, "5m")
    with psycopg.connect(server.url) as connection:
        options = "ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON"
        found = connection.execute(f"EXPLAIN ({options}) {statement}".encode()).fetchone()
        partitions = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'trace_spans_p%' AND relkind = 'r'"
        ).fetchall()
    assert found is not None
    old = f"trace_spans_p{OLD:%Y%m%d}"
    assert (old,) in partitions
    read = {
        node["Relation Name"]
        for node in nodes(found[0][0]["Plan"])
        # Costs by day find the days with spans in an index.
        if node["Actual Loops"] and node["Node Type"] != "Index Only Scan"
        if "Relation Name" in node
    }
    assert read
    assert old not in read


def test_only_some_panels_need_texts(server: EmbeddedPostgres) -> None:
    refused = set()
    for query in OF_POSTGRES:
        try:
            assert rows_of(server, query, NOTHING_SELECTED, role="observatory_facts")[1]
        except psycopg.errors.InsufficientPrivilege:
            refused.add(query.title)
    assert refused == {"Errors", "Logs", "Spans of the trace ${trace}"}


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


def shown(server: EmbeddedPostgres, title: str, **values: Any) -> list[tuple[Any, ...]]:
    (query,) = (each for each in OF_POSTGRES if each.title == title)
    return rows_of(server, query, {**NOTHING_SELECTED, **values})[1]


def test_numbers_are_those_of_the_selected_spans(server: EmbeddedPostgres) -> None:
    assert shown(server, "Requests") == [(8,)]
    assert shown(server, "Failed calls") == [(1 / 8,)]
    assert shown(server, "Tokens", service=[SERVICE]) == [(800,)]
    # With everything selected, spans without an environment count too.
    assert shown(server, "Cost") == [(Decimal("2.00"),)]
    assert shown(server, "Cost", environment=["production"]) == [(Decimal("1.00"),)]
    assert shown(server, "Cost", service=["nobody"], model=["gpt-4o"]) == [(None,)]
    assert shown(server, "Latency (p95)") == [(1000.0,)]
    assert shown(server, "First token (median)") == [(120.0,)]


def test_sampled_calls_are_shown_as_often_as_their_weights_say(server: EmbeddedPostgres) -> None:
    def numbers(connection: psycopg.Connection[Any]) -> list[list[tuple[Any, ...]]]:
        found = []
        for title in ("Requests", "Model calls", "Failed calls", "Tokens", "Cost"):
            (query,) = (each for each in OF_POSTGRES if each.title == title)
            statement = expanded(query, NOTHING_SELECTED, START, END, "5m")
            found.append(connection.execute(statement.encode()).fetchall())
        return found

    with psycopg.connect(server.url) as connection:
        once = numbers(connection)
        connection.execute("UPDATE trace_spans SET sample_weight = 10 WHERE status <> 'error'")
        connection.execute(
            "UPDATE trace_spans AS s SET sample_weight = NULL WHERE EXISTS (SELECT FROM"
            " trace_spans AS f WHERE f.trace_id = s.trace_id AND f.status = 'error')"
        )
        weighted = numbers(connection)
        connection.rollback()
    assert once == [[(8,)], [(8,)], [(1 / 8,)], [(800,)], [(Decimal("2.00"),)]]
    assert weighted == [[(71,)], [(71,)], [(1 / 71,)], [(7100,)], [(Decimal("17.75"),)]]


def test_costs_of_a_day_are_shown_whole(server: EmbeddedPostgres) -> None:
    days: dict[date, Decimal] = {}
    for span in calls(START + _HOUR):
        if "total_cost_usd" in span:
            day = span["start_time"].date()
            days[day] = days.get(day, Decimal(0)) + span["total_cost_usd"]
    found = shown(server, "Cost by model and day")
    assert found == [(day, "gpt-4o", cost) for day, cost in sorted(days.items())]


def test_a_failed_span_leads_to_its_trace(server: EmbeddedPostgres) -> None:
    ((_, _, _, _, message, model, _, trace),) = shown(server, "Errors")
    assert (message, model, trace) == ("overloaded", "gpt-4o", trace_id(1))
    spans = shown(server, "Spans of the trace ${trace}", trace=trace)
    assert [row[1] for row in spans] == ["ask", "chat gpt-4o"]
    ((_, body, level, *_, logged_in, _),) = shown(server, "Logs", trace=trace)
    assert (body, level, logged_in) == ("it's slow", "unspecified", trace_id(1))
    assert shown(server, "Logs", trace=trace_id(2)) == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_described(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "grafana.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_one_that_grafana_imports(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert re.fullmatch(r"[a-z-]{8,40}", dashboard["uid"])
    assert dashboard["schemaVersion"] >= 39
    assert dashboard.get("id") is None, "an id belongs to one Grafana"
    panels = list(panels_of(dashboard))
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    (source,) = (each for each in variables.values() if each["type"] == "datasource")
    for panel in panels:
        assert panel["type"] in {"stat", "timeseries", "table", "logs", "row"}
        assert panel["description"]
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": source["query"], "uid": "${datasource}"}
            is_series = panel["type"] == "timeseries"
            assert is_series or target.get("format") != "time_series"
    text = str(dashboard["panels"])
    used = set(re.findall(r"\$\{(\w+)[:}]", text)) - {"__dashboard", "__url_time_range", "__value"}
    assert {re.sub(r"\W.*", "", each) for each in used} - {"__value"} <= variables.keys()
    assert variables.keys() <= used
    for variable in variables.values():
        if variable["type"] == "query" and source["query"] == POSTGRES:
            assert variable["multi"]
            assert variable["includeAll"]
            assert variable["allValue"] == "'*'"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in panels_of(DASHBOARDS[name])]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
