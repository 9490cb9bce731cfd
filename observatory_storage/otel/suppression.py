"""The context in which exporters write: instrumentations record nothing of what happens there.

Without it, the statements of an exporter would become spans, which the exporter would write by
further statements, for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
)

__all__ = ["is_exporting", "unrecorded"]

_EXPORTING: Final = context.create_key("observatory_storage-exporting")
# Instrumentations look for the first two; older ones know the name without its random part.
_SUPPRESSED: Final = {
    _SUPPRESS_INSTRUMENTATION_KEY: True,
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY: True,
    "suppress_instrumentation": True,
    _EXPORTING: True,
}


@contextmanager
def unrecorded() -> Iterator[None]:
    """Suppress instrumentation in this thread."""
    token = context.attach(Context({**context.get_current(), **_SUPPRESSED}))
    try:
        yield
    finally:
        context.detach(token)


def is_exporting() -> bool:
    """Whether this thread is writing for an exporter."""
    return context.get_value(_EXPORTING) is not None
