"""The weights of sampled spans and traces, and views that honour them.

A span without a weight stands for itself alone, as all spans do that are stored already. The views
are those of migration 0016 with a column more, or with weighted sums in place of sums.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from alembic import context, op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Table -> its new columns.
_TABLES: Final[dict[str, dict[str, Any]]] = {
    "traces": {
        "sample_weight": sa.Integer(),
        "weighted_span_count": sa.BigInteger(),
        "weighted_error_count": sa.BigInteger(),
        "weighted_tokens": sa.Numeric(),
        "weighted_cost_usd": sa.Numeric(),
    },
    "trace_spans": {"sample_weight": sa.Integer()},
}
_OF_SPANS: Final = "How many spans of the application it stands for; NULL: for itself alone."
# View -> the comment of its new column.
_COLUMNS: Final = {
    "observatory_traces": "How many traces it stands for; NULL: for itself alone.",
    "observatory_span_facts": _OF_SPANS,
    "observatory_spans": _OF_SPANS,
    "observatory_errors": _OF_SPANS,
}
# Roles that may read single columns could no longer read views of theirs.
_GRANT: Final = """
    DO $grant$
    DECLARE role text;
    BEGIN
        FOR role IN
            SELECT DISTINCT CASE acl.grantee
                     WHEN 0 THEN 'PUBLIC'
                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END
              FROM pg_catalog.pg_attribute AS a
             CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS acl
             WHERE a.attrelid = $name${schema}.{table}$name$::regclass
               AND a.attname = 'total_cost_usd'
               AND acl.privilege_type = 'SELECT'
        LOOP
            EXECUTE $text$GRANT SELECT ({columns}) ON {schema}.{table} TO $text$ || role;
        END LOOP;
    END $grant$
"""
# The grants of a view, whole or for columns, are noted in a setting of the transaction: a temporary
# table would need a privilege.
_NOTE_GRANTS: Final = """
    SELECT pg_catalog.set_config('observatory.grants', coalesce((
        SELECT pg_catalog.string_agg(
                 pg_catalog.format(
                   'GRANT %s%s ON %s TO %s%s', acl.privilege_type, given.column_list,
                   $name${schema}.{view}$name$,
                   CASE acl.grantee WHEN 0 THEN 'PUBLIC'
                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END,
                   CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
                 '; ')
          FROM (SELECT c.relacl AS acl, '' AS column_list, c.relowner
                  FROM pg_catalog.pg_class AS c
                 WHERE c.oid = $name${schema}.{view}$name$::regclass
                 UNION ALL
                SELECT a.attacl, ' (' || pg_catalog.quote_ident(a.attname) || ')', c.relowner
                  FROM pg_catalog.pg_attribute AS a
                  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
                 WHERE c.oid = $name${schema}.{view}$name$::regclass
                   AND a.attname <> 'sample_weight') AS given
         CROSS JOIN LATERAL pg_catalog.aclexplode(given.acl) AS acl
         WHERE acl.grantee <> given.relowner), ''), true)
"""
_GRANT_AGAIN: Final = """
    DO $grants$
    BEGIN
        IF pg_catalog.current_setting('observatory.grants') <> '' THEN
            EXECUTE pg_catalog.current_setting('observatory.grants');
        END IF;
    END $grants$
"""


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    for table, columns in _TABLES.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind), schema=schema)
        _execute(_GRANT.replace("{table}", table).replace("{columns}", ", ".join(columns)))
    former = _former()
    for name, comment in _COLUMNS.items():
        _replace(name, _selecting(former.VIEWS[name], "o.sample_weight"))
        _execute(f"COMMENT ON COLUMN {{schema}}.{name}.sample_weight IS '{comment}'")
    sessions = _weighted(_selecting(former.VIEWS["observatory_sessions"]), _OF_SESSIONS)
    _replace("observatory_sessions", sessions)
    _replace("observatory_costs_by_day", _weighted(former._costs_by_day(), _OF_COSTS))


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    former = _former()
    _replace("observatory_costs_by_day", former._costs_by_day())
    _replace("observatory_sessions", _selecting(former.VIEWS["observatory_sessions"]))
    for name in _COLUMNS:
        # OR REPLACE removes no column.
        _execute(_NOTE_GRANTS.replace("{view}", name))
        _execute(f"DROP VIEW {{schema}}.{name}")
        comment, columns, _ = former.VIEWS[name]
        told = [(column, text) for column, _, text in columns]
        former._create(name, comment, told, _selecting(former.VIEWS[name]))
        _execute(_GRANT_AGAIN)
    for table, columns in _TABLES.items():
        for name in columns:
            op.drop_column(table, name, schema=schema)


def _former() -> Any:
    """The migration that has created the views. Migrations never change."""
    return context.script.get_revision("0016").module


def _selecting(view: tuple[str, Any, str], *more: str) -> str:
    _, columns, source = view
    listed = [f'{expression} AS "{column}"' for column, expression, _ in columns]
    return f"SELECT {', '.join([*listed, *more])} FROM {source}"  # noqa: S608 - constants


def _weighted(query: str, replacements: Mapping[str, str]) -> str:
    for aggregate, weighted in replacements.items():
        assert query.count(aggregate) == 1, aggregate
        query = query.replace(aggregate, weighted)
    return query


def _count(of: str, suffix: str = "") -> str:
    more = f"pg_catalog.sum({of}.sample_weight - 1){suffix}"
    return f"pg_catalog.count(*){suffix} + coalesce({more}, 0)"


def _sum(of: str, column: str) -> str:
    # Tokens may be any bigint, so their product is a numeric.
    more = f"pg_catalog.sum(CAST({of}.{column} AS numeric) * ({of}.sample_weight - 1))"
    more += f" FILTER (WHERE {of}.sample_weight IS NOT NULL)"
    return f"pg_catalog.sum({of}.{column}) + coalesce({more}, 0)"


_FAILED: Final = " FILTER (WHERE t.status = 'error')"
_UNPRICED: Final = " FILTER (WHERE o.total_cost_usd IS NULL)"
_USAGE: Final = tuple(
    f"{side}_{unit}"
    for side in ("prompt", "completion", "total")
    for unit in ("tokens", "cost_usd")
)
# An aggregate of the view -> the same with weights.
_OF_SESSIONS: Final = {
    "pg_catalog.count(*) AS trace_count": f"{_count('t')} AS trace_count",
    f"pg_catalog.count(*){_FAILED}": _count("t", _FAILED),
    **{
        f"pg_catalog.sum(t.{column})": f"pg_catalog.sum(t.{column})"
        f" + coalesce(pg_catalog.sum(t.{weighted} - t.{column}), 0)"
        for column, weighted in (
            ("span_count", "weighted_span_count"),
            ("error_count", "weighted_error_count"),
            ("total_tokens", "weighted_tokens"),
            ("total_cost_usd", "weighted_cost_usd"),
        )
    },
}
_OF_COSTS: Final = {
    "pg_catalog.count(*) AS usage_span_count": f"{_count('o')} AS usage_span_count",
    f"pg_catalog.count(*){_UNPRICED}": _count("o", _UNPRICED),
    **{f"pg_catalog.sum(o.{column})": _sum("o", column) for column in _USAGE},
}


def _replace(name: str, query: str) -> None:
    _execute(f"CREATE OR REPLACE VIEW {{schema}}.{name} WITH (security_invoker = true) AS {query}")


def _execute(statement: str) -> None:
    schema = op.get_context().version_table_schema or "public"
    quoted = '"' + schema.replace('"', '""').replace(":", "\\:") + '"'
    op.execute(statement.replace("{schema}", quoted))
