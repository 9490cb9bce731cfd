"""How many rows a list has in all: counted, or as the planner expects."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Select, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

from observatory_storage.errors import translated

__all__ = ["TOTALS", "Total", "count_exactly", "estimate"]

Total = Literal["exact", "estimated"]
TOTALS: tuple[str, ...] = ("exact", "estimated")


class _Explained(Executable, ClauseElement):
    """The plan of a statement, which is not run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _compile_explained(element: _Explained, compiler: SQLCompiler, **kw: Any) -> str:
    # Compiled along with its parameters, which stay bound: the planner is told their values.
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **kw)}"


def count_exactly(session: Session, statement: Select[Any]) -> int:
    """The number of rows that the statement gives; all of them are visited."""
    with translated():
        counted = session.scalar(select(func.count()).select_from(statement.subquery()))
    return int(counted or 0)


def estimate(session: Session, statement: Select[Any]) -> int:
    """The number of rows that the planner expects, by the statistics that it has of the tables."""
    with translated():
        (document,) = session.execute(_Explained(statement)).one()
    return int(document[0]["Plan"]["Plan Rows"])
