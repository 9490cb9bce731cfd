"""The calculator, one of the tools of the assistant. The other one queries the retriever."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

__all__ = ["ToolArgumentError", "calculate"]

_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class ToolArgumentError(ValueError):
    """A tool was called with arguments that it cannot use."""


def calculate(expression: str) -> float:
    """The value of an arithmetic expression over ``+ - * /``.

    Raises:
        ToolArgumentError: the expression is invalid or has no value.
    """
    try:
        return _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as error:
        raise ToolArgumentError(f"cannot calculate {expression!r}: {error.args[0]}") from error


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ToolArgumentError(f"cannot calculate {ast.unparse(node)!r}: only numbers and + - * /")
