"""What views say, beside what the repositories say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from observatory_storage import StoragePool, UnitOfWork
from observatory_storage.schema_state import quoted_name

__all__ = [
    "FACTS_ROLE",
    "PAGE",
    "PREVIEW_VIEWS",
    "READER_ROLE",
    "VIEW_NAMES",
    "costs",
    "expected_costs",
    "expected_sessions",
    "rows_of",
    "sessions",
]

PAGE = (Path(__file__).parents[2] / "docs" / "sql-views.md").read_text(encoding="utf-8")
# The SQL of the page that makes a role which only reads, and one which reads no texts.
READER_ROLE, FACTS_ROLE = (
    block for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if "CREATE ROLE" in block
)

VIEW_NAMES = (
    *("observatory_traces", "observatory_span_facts", "observatory_spans", "observatory_errors"),
    *("observatory_events", "observatory_sessions", "observatory_costs_by_day"),
    *("observatory_logs", "observatory_metrics", "observatory_data_points"),
)
PREVIEW_VIEWS = ("log_payload_previews", "payload_previews")
_GROUPS = ("service_name", "environment", "gen_ai_operation", "provider", "model")
_SUMS = (
    *("unpriced_span_count", "prompt_tokens", "completion_tokens", "total_tokens"),
    *("prompt_cost_usd", "completion_cost_usd", "total_cost_usd"),
)


def rows_of(pool: StoragePool, query: str, **values: Any) -> list[dict[str, Any]]:
    """The rows of a query, in which `{schema}` stands for the pool's schema."""
    statement = sa.text(query.replace("{schema}", quoted_name(pool.schema)))
    with pool.engine.connect() as connection:
        return [dict(row) for row in connection.execute(statement, values).mappings()]


def costs(uow: UnitOfWork) -> set[tuple[Any, ...]]:
    """The rows of the view of costs by day."""
    return {
        tuple(row) for row in uow.session.execute(sa.text("SELECT * FROM observatory_costs_by_day"))
    }


def expected_costs(uow: UnitOfWork, source: Literal["auto", "raw"] = "raw") -> set[tuple[Any, ...]]:
    """The rows that it ought to have."""
    return {
        (
            summary.timestamp.date(),
            *(summary.group[name] for name in _GROUPS),
            summary.span_count,
            *(getattr(summary, name) for name in _SUMS),
        )
        for summary in uow.metrics.get_cost_summary(
            bucket_size_secs="day", group_by=_GROUPS, source=source
        )
        if summary.timestamp is not None
    }


def sessions(uow: UnitOfWork) -> list[dict[str, Any]]:
    """The rows of the view of sessions, in the order of the list."""
    query = "SELECT * FROM observatory_sessions ORDER BY last_start_time DESC, session_id DESC"
    return [dict(row) for row in uow.session.execute(sa.text(query)).mappings()]


def expected_sessions(uow: UnitOfWork) -> list[dict[str, Any]]:
    """The rows that it ought to have."""
    return [
        {
            **session.to_dict(),
            "user_ids": list(session.user_ids) or None,
            "service_names": list(session.service_names),
        }
        for session in uow.traces.iterate_sessions()
    ]
