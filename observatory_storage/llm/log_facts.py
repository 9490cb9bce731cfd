"""Facts of a span that only its log records tell: the user and the session.

A log record tells facts if it reports messages, and names its span by `trace_id` and `span_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from observatory_storage.llm.aliases import NESTED, PLAIN, plain_readers_of
from observatory_storage.llm.contents import reports_messages

__all__ = [
    "LOGGED_AFTER",
    "LOGGED_BEFORE",
    "LOGGED_FACTS",
    "SCOPES_WITH_LOGGED_FACTS",
    "facts_of_log",
    "may_tell_facts",
    "names_of_logged_facts",
    "tells_facts",
]

# A log record belongs to the span that it names if its time is so much before or after the span's
# start at most. The bounds limit a search to the partitions of logs beside those of the spans.
LOGGED_BEFORE: Final = timedelta(hours=1)
LOGGED_AFTER: Final = timedelta(days=1)

LOGGED_FACTS: Final = ("user_id", "session_id")
"""The columns of `TraceSpan` that log records fill."""

# Instrumentations that never tell the user on a span. Their log records usually arrive before the
# spans, which have not ended when the records are made.
SCOPES_WITH_LOGGED_FACTS: Final = frozenset({"gcp.vertex.agent"})


def tells_facts(event_name: object) -> bool:
    """Whether a log record of this name may tell facts of its span.

    The result of an evaluation may name the user who evaluated.
    """
    return reports_messages(event_name) and not str(event_name).startswith("gen_ai.evaluation")


def names_of_logged_facts() -> list[str]:
    """The attributes that tell these facts, those of the application included."""
    return [key for key, reader in PLAIN.items() if reader.column in LOGGED_FACTS]


def facts_of_log(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The facts that the attributes of a log record tell: `LOGGED_FACTS`, as far as known."""
    found: dict[str, str] = {}
    for key, (column, _, read, *_) in plain_readers_of(attributes):
        if column in LOGGED_FACTS and column not in found:
            value = read(attributes[key])
            if value is not None:
                found[column] = value
    return found


def may_tell_facts(key: str) -> bool:
    """Whether an attribute of this name may tell a user or a session.

    Such attributes stay in their row, where facts are read from them and erasure finds them.
    """
    readers = (*NESTED.get(key, ()), *((PLAIN[key],) if key in PLAIN else ()))
    return any(reader.column in LOGGED_FACTS for reader in readers)
