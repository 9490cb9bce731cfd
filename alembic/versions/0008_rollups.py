"""Rollups of spans by minute, hour and day, of users, sessions and errors, and marks of changes.

All tables begin empty, and no row is marked before rollups are refreshed for the first time. Roles
that may write spans may mark changes; roles that may read spans may read rollups.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NAME = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)
_DETAILS = (
    *("prompt_cache_read", "prompt_cache_write", "prompt_cache_write_1h", "prompt_audio"),
    *("prompt_image", "prompt_video", "completion_reasoning", "completion_audio"),
    *("completion_image", "completion_video"),
)
_ROLLUPS = {
    "span": ("minute", "hour", "day"),
    "latency": ("hour", "day"),
    "user": ("hour", "day"),
    "session": ("hour", "day"),
    "error": ("hour", "day"),
}
_INDEXES = {"latency": ("service_name", "name"), "user": ("user_id",)}


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_table(
        "span_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("level", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_span_changes"),
        schema=schema,
    )
    op.create_table(
        "rollup_state",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("raw_since", _TIME, nullable=True),
        sa.Column("minute_since", _TIME, nullable=True),
        sa.Column("hour_since", _TIME, nullable=True),
        sa.Column("day_since", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_rollup_state"),
        schema=schema,
    )
    for kind, units in _ROLLUPS.items():
        for unit in units:
            name = f"{kind}_rollups_{unit}"
            op.create_table(
                name,
                sa.Column("bucket", _TIME, nullable=False),
                sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
                *_columns(kind),
                sa.PrimaryKeyConstraint("bucket", "position", name=f"pk_{name}"),
                schema=schema,
            )
            if kind in _INDEXES:
                op.create_index(f"ix_{name}", name, [*_INDEXES[kind], "bucket"], schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for kind, units in reversed(_ROLLUPS.items()):
        for unit in reversed(units):
            op.drop_table(f"{kind}_rollups_{unit}", schema=schema)
    op.drop_table("rollup_state", schema=schema)
    op.drop_table("span_changes", schema=schema)


def _columns(kind: str) -> list[sa.Column[object]]:
    if kind == "span":
        return [
            *_names("service_name", "name", null=False),
            *_names("operation", "provider", "model", "environment"),
            *_names("status", null=False),
            *_usage(),
            *_sums(*_DETAILS),
            *_durations(),
        ]
    if kind == "latency":
        percentiles = (sa.Column(f"p{n}_us", sa.Double(), nullable=True) for n in (50, 90, 95, 99))
        return [*_names("service_name", "name"), *percentiles, *_durations()]
    if kind == "user":
        return [*_names("user_id", null=False), *_names("provider", "model"), *_usage()]
    if kind == "session":
        return [
            *_names("session_id", null=False),
            *_names("user_id"),
            *_counts("span_count"),
        ]
    return [
        *_names("service_name", "name", null=False),
        *_names("error_type", "user_id", "session_id"),
        *_counts("span_count"),
        sa.Column("first_seen", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        *_names("span_id", null=False),
    ]


def _names(*names: str, null: bool = True) -> list[sa.Column[object]]:
    return [sa.Column(name, _NAME, nullable=null) for name in names]


def _counts(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _sums(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Numeric(), nullable=True) for name in names]


def _usage() -> list[sa.Column[object]]:
    return [
        *_counts("span_count", "error_count", "usage_span_count", "unpriced_span_count"),
        *_sums("prompt_tokens", "completion_tokens", "total_tokens"),
        *_sums("prompt_cost_usd", "completion_cost_usd", "total_cost_usd"),
    ]


def _durations() -> list[sa.Column[object]]:
    return [
        *_counts("duration_count"),
        *_sums("duration_sum_us"),
        sa.Column("duration_min_us", sa.Double(), nullable=True),
        sa.Column("duration_max_us", sa.Double(), nullable=True),
        *_counts("duration_zeros"),
        sa.Column("duration_indexes", postgresql.ARRAY(sa.SmallInteger()), nullable=True),
        sa.Column("duration_counts", postgresql.ARRAY(sa.BigInteger()), nullable=True),
    ]
