"""Conditions that are written differently where tables have shards."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from observatory_storage.distribution import is_for_shards

__all__ = ["ByLayout"]


class ByLayout(sa.ColumnElement[bool]):
    """A condition that is chosen when a statement is compiled.

    Filters do not know the layout, and the statements that are made of them are kept.

    Args:
        plain: the condition where one server has all rows.
        sharded: the condition where tables have shards.
    """

    inherit_cache = True
    type = sa.Boolean()
    _traverse_internals = [  # noqa: RUF012 - as SQLAlchemy declares it
        ("plain", InternalTraversal.dp_clauseelement),
        ("sharded", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, plain: sa.ColumnElement[bool], sharded: sa.ColumnElement[bool]) -> None:
        self.plain = plain
        self.sharded = sharded


@compiles(ByLayout)
def _compile(element: ByLayout, compiler: SQLCompiler, **kw: Any) -> str:
    chosen = element.sharded if is_for_shards(compiler.dialect) else element.plain
    # In parentheses: what stands beside it may bind more tightly.
    return f"({compiler.process(chosen, **kw)})"
