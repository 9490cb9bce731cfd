"""Contexts in which OpenTelemetry's instrumentations record nothing, for threads that write.

The statements of a background thread belong to no trace of the application: each would become a
trace of its own. An exporter would store these by further statements, forever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, TypeAlias

__all__ = [
    "Suppression",
    "is_hook_suppressed",
    "suppress_all",
    "suppress_instrumentations",
]

Suppression: TypeAlias = Callable[[], AbstractContextManager[None]]

_IS_HOOK_SUPPRESSED: Final = "observatory_storage-is-hook-suppressed"


def suppress_instrumentations() -> AbstractContextManager[None]:
    """Instrumentations record nothing in this thread; `OpenTelemetryHook` still does."""
    if "opentelemetry.context" not in sys.modules:
        return nullcontext()
    return _suppressed(hook=is_hook_suppressed())


def suppress_all() -> AbstractContextManager[None]:
    """Neither instrumentations nor `OpenTelemetryHook` record anything in this thread."""
    return _suppressed(hook=True)


@contextmanager
def _suppressed(*, hook: bool) -> Iterator[None]:
    from opentelemetry import context

    # Instrumentations look for the first two; older ones know the name without its random part.
    keys = (
        context._SUPPRESS_INSTRUMENTATION_KEY,
        context._SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        "suppress_instrumentation",
    )
    values = {**dict.fromkeys(keys, True), _IS_HOOK_SUPPRESSED: hook}
    token = context.attach(context.Context({**context.get_current(), **values}))
    try:
        yield
    finally:
        context.detach(token)


def is_hook_suppressed() -> bool:
    """Whether `OpenTelemetryHook` records nothing in this thread."""
    from opentelemetry import context

    ours = context.get_value(_IS_HOOK_SUPPRESSED)
    if ours is not None:
        return bool(ours)
    # Exporters of the SDK set the first, `suppress_instrumentation` of the instrumentations both.
    return bool(
        context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY)
        or context.get_value("suppress_instrumentation")
    )
