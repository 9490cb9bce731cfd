"""The context in which the store is written: OpenTelemetry's instrumentations record nothing in it.

Without it, the statements of a writer would become spans, which an exporter would write by further
statements, for ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

__all__ = ["is_unrecorded", "unrecorded"]

_OURS: Final = "observatory_storage-unrecorded"
_CONTEXT: Final = "opentelemetry.context"


def unrecorded() -> AbstractContextManager[None]:
    """A context that suppresses instrumentation in this thread, if OpenTelemetry is there."""
    return _suppressed() if _CONTEXT in sys.modules else nullcontext()


@contextmanager
def _suppressed() -> Iterator[None]:
    from opentelemetry import context

    # Instrumentations look for the first two; older ones know the name without its random part.
    keys = (
        context._SUPPRESS_INSTRUMENTATION_KEY,
        context._SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        *("suppress_instrumentation", _OURS),
    )
    token = context.attach(context.Context({**context.get_current(), **dict.fromkeys(keys, True)}))
    try:
        yield
    finally:
        context.detach(token)


def is_unrecorded() -> bool:
    """Whether this thread is writing to the store."""
    if _CONTEXT not in sys.modules:
        return False
    from opentelemetry import context

    return context.get_value(_OURS) is not None
