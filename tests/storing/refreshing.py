"""Spans as an older version has stored them, for tests of `refresh_facts`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from observatory_storage import (
    StoragePool,
)
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.models import TraceSpan
from tests.writers.helpers import Row, a_span, contents, fetch, span_id
from tests.writers.trace_model import check_traces

LLM_COLUMNS = (*ALIASES, "token_details", "reported_usage")
SECOND = timedelta(seconds=1)


def execute(pool: StoragePool, statement: str) -> None:
    with pool.engine.begin() as connection:
        connection.execute(sa.text(statement))


def forget_facts(pool: StoragePool, where: str = "true") -> None:
    """Make the rows those of a version that knew no attribute, and did not count usage."""
    columns = ", ".join(f"{column} = NULL" for column in LLM_COLUMNS)
    execute(pool, f"UPDATE trace_spans SET {columns} WHERE {where}")
    execute(
        pool,
        "UPDATE trace_spans SET status_message = NULL, otlp = NULLIF(otlp - 'status_message', '{}')"
        f" WHERE otlp -> 'status_message' = 'null' AND {where}",
    )
    execute(
        pool,
        "UPDATE traces SET total_tokens = NULL, total_cost_usd = NULL, usage_span_count = 0,"
        " unsettled_since = NULL",
    )


def call(trace: int, number: int, prompt: int, completion: int, **attributes: Any) -> Row:
    return a_span(
        trace,
        number,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": prompt,
            "gen_ai.usage.output_tokens": completion,
            **attributes,
        },
    )


def inside(span: Row, parent: int) -> Row:
    return {**span, "parent_span_id": span_id(parent)}


def stored(pool: StoragePool, number: int = 1, trace: int = 1) -> Row:
    rows = fetch(pool, TraceSpan)
    (row,) = [
        row for row in rows if (row["trace_id"].int, row["span_id"]) == (trace, span_id(number))
    ]
    return row


def as_today(pool: StoragePool) -> dict[str, list[str]]:
    pool.settle_usage()
    check_traces(pool)
    return contents(pool, times_of_writing=False)
