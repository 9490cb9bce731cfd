"""Tells the cache and other listeners of what maintenance deletes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from observatory_storage.commits import Change, Commit
from observatory_storage.errors import translated
from observatory_storage.storing.transaction import Source

__all__ = ["telling_of"]


@contextmanager
def telling_of(source: Source, *changes: Change) -> Iterator[None]:
    """Tell of changes that are done, and committed, within the block by transactions of its own."""
    with source.commits.telling() as telling:
        if source.commits:
            with translated(), source.engine.connect() as connection:
                telling.announce(connection, Commit(changes=changes))
        yield
