"""Finds the ids that begin with a text that a user typed.

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
_SHORT_DIGITS: Final = 16
# The columns compare by code point, and no character comes after this one.
_LAST_CHARACTER: Final = chr(sys.maxunicode)


def traces_with_prefix(session: Session, prefix: str, limit: int) -> list[Trace]:
    """The traces whose id begins with a text, in the order of their ids.

    The text is compared with both forms of an id: the text that the program gave
    (`Trace.trace_id`), and the UUID (`Trace.id`) with or without dashes, and
    without the zeros before an id of 64 bits. Hex digits may be in upper or lower case.

    Args:
        session: the session to read with.
        prefix: the beginning of an id.
        limit: the maximum number of traces.
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
    if is_hex and len(digits) <= _SHORT_DIGITS:  # of an id of 64 bits, which is stored padded
        first, last = (UUID(digits.ljust(_SHORT_DIGITS, fill).zfill(_UUID_DIGITS)) for fill in "0f")
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

    It runs one statement for each id, a loose index scan: each statement jumps to the next id,
    however many spans a session has.

    Args:
        session: the session to read with.
        prefix: the beginning of a session's id.
        limit: the maximum number of ids.
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
