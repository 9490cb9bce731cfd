"""Pins: traces that retention spares whatever their age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from observatory_storage.arrow import ResultList, shape_of_results
from observatory_storage.errors import NotFound
from observatory_storage.models import PINNED_TRACES, Trace
from observatory_storage.read_only_guard import writes
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.former_ids import by_either_id
from observatory_storage.repositories.traces.trace_bounds import trace_name
from observatory_storage.serialization import Result

__all__ = ["PinQueries", "PinnedTrace"]


@dataclass(frozen=True, slots=True)
class PinnedTrace(Result):
    """A pinned trace.

    Attributes:
        id: the `id` of the trace.
        trace_id: the trace id as the program gave it.
        reason: why it is kept; None if no reason was given.
        pinned_at: when it was pinned.
    """

    id: UUID
    trace_id: str
    reason: str | None
    pinned_at: datetime


# Retention locks a trace before it looks for a pin, so a trace is never both pinned and deleted.
_LOCKING: Final = (
    sa.select(Trace.id).where(Trace.id == sa.bindparam("key")).with_for_update(key_share=True)
)
_PINNING: Final = insert(PINNED_TRACES)
_LISTING: Final = (
    sa.select(Trace.id, Trace.trace_id, PINNED_TRACES.c.reason, PINNED_TRACES.c.pinned_at)
    .join(PINNED_TRACES, PINNED_TRACES.c.trace_id == Trace.id)
    .order_by(PINNED_TRACES.c.pinned_at, Trace.id)
)


class PinQueries:
    """The methods of `TraceRepository` for pins."""

    _reader: Reader

    @writes
    def pin(self, trace_id: validation.TraceId, reason: str | None = None) -> None:
        """Pin a trace, so that retention spares it with all its spans, whatever its age.

        Pinning it again replaces the reason. A deletion of the trace removes the pin.

        Args:
            trace_id: the trace.
            reason: why it is kept, such as ``"incident of March 14"``.

        Raises:
            NotFound: there is no such trace.
        """
        key, name = validation.trace_key("trace_id", trace_id), trace_name(trace_id)
        why = validation.text("reason", reason)
        by_either_id(key, lambda one: _pin(self._reader, one, name, why))

    @writes
    def unpin(self, trace_id: validation.TraceId) -> None:
        """Remove the pin of a trace. The next run of retention treats it as any other.

        Raises:
            NotFound: the trace is not pinned.
        """
        key, name = validation.trace_key("trace_id", trace_id), trace_name(trace_id)
        by_either_id(key, lambda one: _unpin(self._reader, one, name))

    def pinned(self) -> ResultList[PinnedTrace]:
        """List the pinned traces, in the order in which they were pinned."""
        found = (PinnedTrace(*row) for row in self._reader.rows(_LISTING))
        return ResultList(found, shape_of_results(PinnedTrace))


def _pin(reader: Reader, key: UUID, name: object, reason: str | None) -> None:
    if not reader.rows(_LOCKING, {"key": key}):
        raise NotFound(f"there is no trace {name}")
    statement = _PINNING.values(trace_id=key, reason=reason).on_conflict_do_update(
        index_elements=["trace_id"], set_={"reason": _PINNING.excluded.reason}
    )
    reader.change(statement)


def _unpin(reader: Reader, key: UUID, name: object) -> None:
    if not reader.change(sa.delete(PINNED_TRACES).where(PINNED_TRACES.c.trace_id == key)):
        raise NotFound(f"trace {name} is not pinned")
