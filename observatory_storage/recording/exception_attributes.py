"""Exceptions as attributes, by OpenTelemetry's semantic conventions."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

__all__ = ["error_text", "exception_attributes", "type_name"]


def exception_attributes(
    error: BaseException, trace: TracebackType | None = None
) -> dict[str, Any]:
    """``exception.type``, ``exception.message`` and ``exception.stacktrace``.

    Args:
        error: the exception.
        trace: its traceback, if it is not the one that the exception has.
    """
    try:
        lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
    except Exception as other:  # noqa: BLE001 - the exception's own code
        lines = [f"<no stack trace: {type(other).__name__}>"]
    return {
        "exception.type": type_name(error),
        "exception.message": error_text(error),
        "exception.stacktrace": "".join(lines).rstrip("\n"),
    }


def error_text(error: BaseException) -> str:
    """What an exception says, or its class if it says nothing."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - the exception's own code
        return type(error).__name__


def type_name(error: BaseException) -> str:
    """The full name of an exception's class."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
