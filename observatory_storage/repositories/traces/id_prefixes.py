"""Which ids begin with what somebody typed.

Each search reads a range of an index, and returns a bounded number of rows.
"""

from __future__ import annotations

import string
import sys
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from observatory_storage.errors import translated
from observatory_storage.models import Trace, TraceSpan

__all__ = ["sessions_with_prefix", "traces_with_prefix"]

_HEX_DIGITS: Final = frozenset(string.hexdigits)
_UUID_DIGITS: Final = 32
# The columns compare by code point, and no character comes after this one.
_LAST_CHARACTER: Final = chr(sys.maxunicode)


def traces_with_prefix(session: Session, prefix: str, limit: int) -> list[Trace]:
    """The traces whose id begins with a text, in the order of their ids.

    Both forms of an id count: the program's own (`Trace.trace_id`), and the UUID (`Trace.id`),
    with its dashes or without. Hex digits may be of either case.

    Args:
        session: where to read.
        prefix: the beginning of an id.
        limit: the most traces to return.
    """
    digits = prefix.replace("-", "")
    is_hex = 0 < len(digits) <= _UUID_DIGITS and _HEX_DIGITS.issuperset(digits)
    texts = {prefix, prefix.lower()} if is_hex else {prefix}
    ranges: list[tuple[InstrumentedAttribute[Any], Any, Any]] = [
        (Trace.trace_id, text, text + _LAST_CHARACTER) for text in texts
    ]
    if is_hex:
        first, last = (UUID(digits.ljust(_UUID_DIGITS, fill)) for fill in "0f")
        ranges.append((Trace.id, first, last))
    found: dict[UUID, Trace] = {}
    with translated():
        for column, first, last in ranges:
            statement = select(Trace).where(column >= first, column <= last)
            rows = session.scalars(statement.order_by(column).limit(limit))
            found.update((trace.id, trace) for trace in rows)
    return sorted(found.values(), key=lambda trace: trace.trace_id)[:limit]


def sessions_with_prefix(session: Session, prefix: str, limit: int) -> list[str]:
    """The session ids that begin with a text, in order.

    One statement for each id: the index is skipped through from one to the next, however many
    spans a session has.

    Args:
        session: where to read.
        prefix: the beginning of a session's id.
        limit: the most ids to return.
    """
    column = TraceSpan.session_id
    following: ColumnElement[bool] = column >= prefix
    found: list[str] = []
    with translated():
        while len(found) < limit:
            condition = (following, column <= prefix + _LAST_CHARACTER)
            smallest = session.scalar(select(func.min(column)).where(*condition))
            if smallest is None:
                break
            found.append(smallest)
            following = column > smallest
    return found
