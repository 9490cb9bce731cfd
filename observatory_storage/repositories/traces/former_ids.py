"""Ids that an earlier version gave to traces of 64 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from observatory_storage import ids
from observatory_storage.errors import NotFound

__all__ = ["by_either_id"]

T = TypeVar("T")


def by_either_id(key: UUID, ask: Callable[[UUID], T]) -> T:
    """The answer for a trace, also if an earlier version stored it under another UUID."""
    try:
        return ask(key)
    except NotFound:
        former = ids.former_trace_uuid(key)
        if former is None:
            raise
    return ask(former)
