"""docs/sql-views.md has every view and column, and views have every column of their tables."""

from __future__ import annotations

import re

import psycopg
import pytest

from observatory_storage.models import Base
from observatory_storage.schema_state import VIEWS
from tests.views.view_rows import PAGE, PREVIEW_VIEWS, VIEW_NAMES

_COLUMNS = """
    SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
           pg_catalog.col_description(a.attrelid, a.attnum)
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = %s::regclass AND a.attnum > 0
     ORDER BY a.attnum
"""
# View -> its table, and the columns of the table that it leaves out, for a reason.
TABLES_OF_VIEWS = {
    "observatory_traces": (
        "traces",
        # What merging needs, not what it is about.
        {"lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id"}
        | {"usage_span_count", "unsettled_since"}
        # What the views of sessions and spans tell.
        | {"weighted_span_count", "weighted_error_count", "weighted_tokens", "weighted_cost_usd"},
    ),
    "observatory_spans": (
        "trace_spans",
        # In duration_ms; in cached_tokens and reasoning_tokens; with reported_usage; for frames and
        # exports.
        {"end_ns", "token_details", "reported_cost_source", "payload_frame", "otlp"},
    ),
    "observatory_events": ("trace_events", {"otlp", "payload_frame"}),
    # The view log_payload_previews has the digests.
    "observatory_logs": ("logs", {"otlp", "payload_frame", "payload_digests"}),
    "observatory_metrics": ("metrics", {"otlp"}),
    "observatory_data_points": ("metric_data_points", {"otlp"}),
}
_RENAMED = {
    "observatory_traces": {"id": "trace_id", "trace_id": "given_trace_id", "root_span_name": "name"}
    | {"duration_us": "duration_ms"},
    "observatory_spans": {"duration_us": "duration_ms", "duration_ns": "duration_ms"},
    "observatory_logs": {"id": "log_id"},
    "observatory_metrics": {"id": "metric_id"},
    "observatory_data_points": {"id": "series_id"},
}


def test_all_views_are_known() -> None:
    assert {*VIEW_NAMES, *PREVIEW_VIEWS} == VIEWS


@pytest.mark.parametrize("view", VIEW_NAMES)
def test_every_column_is_documented_with_its_type(view: str, database_url: str) -> None:
    section = PAGE.partition(f"### {view}\n")[2].partition("###")[0]
    listed = re.findall(r"^\| `(\w+)` \| ([\w \[\]]+) \| (.+) \|$", section, re.MULTILINE)
    with psycopg.connect(database_url) as connection:
        columns = connection.execute(_COLUMNS, [view]).fetchall()
        comment = connection.execute(
            "SELECT pg_catalog.obj_description(%s::regclass)", [view]
        ).fetchone()
    assert listed == columns
    assert comment is not None
    assert section.strip().startswith(comment[0])
    assert f"| `{view}` |" in PAGE


@pytest.mark.parametrize("view", TABLES_OF_VIEWS)
def test_every_column_of_a_table_is_in_its_view_or_left_out_for_a_reason(
    view: str, database_url: str
) -> None:
    table, left_out = TABLES_OF_VIEWS[view]
    with psycopg.connect(database_url) as connection:
        columns = {row[0] for row in connection.execute(_COLUMNS, [view])}
    renamed = _RENAMED.get(view, {})
    named = {
        renamed.get(column.name, column.name) for column in Base.metadata.tables[table].columns
    }
    assert left_out <= named, "only columns that there are can be left out"
    assert named - columns == left_out


def test_facts_have_no_texts() -> None:
    facts = PAGE.partition("### observatory_span_facts\n")[2].partition("###")[0]
    names = set(re.findall(r"^\| `(\w+)` ", facts, re.MULTILINE))
    texts = {"attributes", "status_message", "links", "resource_attributes", "scope_attributes"}
    assert not names & texts
    assert "jsonb" not in facts


def test_the_sql_runs(database_url: str) -> None:
    queries = [
        block
        for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
        if "CREATE ROLE" not in block
    ]
    assert len(queries) == 2
    with psycopg.connect(database_url) as connection:
        for query in queries:
            connection.execute(query)
