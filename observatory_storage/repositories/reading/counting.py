"""How many rows a list has: counted, or as the planner expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from sqlalchemy import Select, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["TOTALS", "Total", "counting_statement", "expected"]

Total = Literal["exact", "estimated"]
TOTALS: tuple[str, ...] = ("exact", "estimated")


class _Explained(Executable, ClauseElement):
    """The plan of a statement, which is not run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _compile_explained(element: _Explained, compiler: SQLCompiler, **kw: Any) -> str:
    # The parameters stay bound, and the planner is told their values.
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **kw)}"


def counting_statement(statement: Select[Any]) -> Select[int]:
    """The statement that counts the rows of another; PostgreSQL visits all of them."""
    return select(func.count()).select_from(statement.subquery())


def expected(
    row_of: Callable[..., Any], statement: Select[Any], parameters: Mapping[str, Any] | None
) -> int:
    """The number of rows that the planner expects, by the statistics that it has.

    Args:
        row_of: runs a statement that has one row.
    """
    (document,) = row_of(_Explained(statement), parameters)
    return int(document[0]["Plan"]["Plan Rows"])
