"""Finds the id that a user typed, as a whole or by a unique beginning."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.ids import uuid_of
from observatory_storage.models import Trace
from observatory_storage.repositories import LogFilters
from observatory_storage.repositories.traces.id_prefixes import (
    sessions_with_prefix,
    traces_with_prefix,
)
from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["find_session_id", "find_span_id", "find_trace", "find_trace_id"]

_SHOWN_CANDIDATES = 5
_SPAN_DIGITS = 16


def find_trace(work: UnitOfWork, typed: str) -> Trace:
    """The trace of an id or of the beginning of one.

    Raises:
        NotFound: no trace has it, or several do; these are named.
        ValidationError: it is empty.
    """
    try:
        return work.traces.get_by_trace_id(typed)
    except NotFound:
        found = traces_with_prefix(work.session, typed, _SHOWN_CANDIDATES + 1)
        if not found:
            raise
    _refuse_several("traces", typed, [trace.trace_id for trace in found])
    return found[0]


def find_trace_id(work: UnitOfWork, typed: str) -> str:
    """The id of a trace whose log is wanted: log records need no stored trace.

    Raises:
        NotFound: the text is no whole id, and neither a trace nor a log record has it; or several
            traces have ids that begin so.
        ValidationError: it is empty.
    """
    with suppress(ValidationError):
        return str(uuid_of(typed, "trace_id"))
    try:
        return str(find_trace(work, typed).id)
    except NotFound:
        if work.logs.list(LogFilters(trace_id=typed, limit=1)).rows:
            return typed
        raise


def find_span_id(work: UnitOfWork, trace_id: str, typed: str) -> str:
    """The id of the span of a trace whose id has the given beginning.

    Raises:
        NotFound: several spans of the trace have ids that begin so.
    """
    if len(typed) >= _SPAN_DIGITS:
        return typed
    spans = work.traces.get_spans(trace_id)
    found = sorted({span.span_id for span in spans if span.span_id.startswith(typed.lower())})
    if not found:
        raise NotFound(f"there is no span {typed} in the trace")
    _refuse_several("spans", typed, found)
    return found[0]


def find_session_id(work: UnitOfWork, typed: str) -> str:
    """The id of the session whose id has the given beginning, or the text itself if there is none.

    Raises:
        NotFound: several sessions have ids that begin so, and none has exactly this one.
    """
    found = sessions_with_prefix(work.session, typed, _SHOWN_CANDIDATES + 1)
    if not found or typed in found:
        return typed
    _refuse_several("sessions", typed, found)
    return found[0]


def _refuse_several(what: str, typed: str, ids: Sequence[str]) -> None:
    if len(ids) > 1:
        more = ", …" if len(ids) > _SHOWN_CANDIDATES else ""
        names = ", ".join(ids[:_SHOWN_CANDIDATES])
        raise NotFound(f"several {what} begin with {typed}: {names}{more}")
