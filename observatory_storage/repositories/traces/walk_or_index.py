"""Reads the first traces for a condition on JSON, and asks the indexes where a value is rare.

A frequent value fills the page from the first traces; an index would find too many spans. A rare
value is found by an index. Both are in one statement, of which the server runs the part on indexes
only if few of the first traces match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from observatory_storage.models import Trace
from observatory_storage.repositories.reading.pages import Seek
from observatory_storage.repositories.traces import trace_statements as statements
from observatory_storage.repositories.traces.candidates import are_few, limit_parameter
from observatory_storage.repositories.traces.filters import TraceFilters
from observatory_storage.repositories.traces.trace_walk import TraceWalk

__all__ = ["WalkOrIndex"]

# 30 traces are read in order, and up to 300 if the first ones promise to fill the page; fewer for
# words, since prompts may have to be parsed.
_WALKED: Final = (30, 300)
_WALKED_FOR_WORDS: Final = (15, 50)

# For each engine, the keys of attributes whose values were frequent when they were last asked for,
# and those whose values were rare. The statement then leaves out the search of the indexes, or the
# first traces, which saves planning that part.
_frequent: Final[WeakKeyDictionary[sa.Engine, set[frozenset[str]]]] = WeakKeyDictionary()
_rare: Final[WeakKeyDictionary[sa.Engine, set[frozenset[str]]]] = WeakKeyDictionary()
_MOST_REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True)
class WalkOrIndex:
    """A search for traces by conditions on JSON.

    Attributes:
        at_once: whether one statement may read traces and search the indexes.
    """

    walk: TraceWalk
    filters: TraceFilters
    at_once: bool

    def rows(self, seek: Seek) -> tuple[list[Trace], int | None]:
        """The rows among the first traces and None; or all rows, and how many spans have them.

        If these spans are not `candidates.are_few`, rows are missing.
        """
        few, most = _WALKED_FOR_WORDS if self.filters.searches_content() else _WALKED
        walks = seek.row_limit <= most  # otherwise so many traces cannot fill the page
        # More are read if the first ones have at least half of the matches that would fill it.
        promising = -(-seek.row_limit * few // (2 * most)) if walks else 0
        keys = frozenset(self.filters.attributes or ())
        engine = self.walk.reader.session.connection().engine
        frequent, rare = _frequent.setdefault(engine, set()), _rare.setdefault(engine, set())
        if self.at_once and len(self.walk.conditions.json()) == 1 and keys not in frequent:
            rows, count = self._of_both(seek, few, promising, walks=walks and keys not in rare)
            if rows and (count is None or not are_few(count)):
                rare.discard(keys)
            elif rows and keys:  # one word is rare, and the next is not
                _remember(rare, keys)
            if count is not None:
                return rows, count
        else:
            rows = self.walk.nearest(seek, few) if walks else []
        is_frequent = walks and len(rows) >= promising
        if not is_frequent:
            frequent.discard(keys)
            return rows, None
        _remember(frequent, keys)
        if len(rows) < seek.row_limit:
            rows += self.walk.nearest(seek.following(rows), most - few)
        return rows, None

    def _of_both(
        self, seek: Seek, few: int, promising: int, *, walks: bool
    ) -> tuple[list[Trace], int | None]:
        make = statements.walked_or_indexed
        statement = self.walk.statement(make, seek.shape, walks=walks)
        values = {"trace_limit": few, "promising": promising, **limit_parameter()}
        found = self.walk.reader.entities_with(statement, {**self.walk.values(seek), **values})
        return [trace for trace, _ in found], found[0][1] if found else None


def _remember(remembered: set[frozenset[str]], keys: frozenset[str]) -> None:
    if len(remembered) < _MOST_REMEMBERED:
        remembered.add(keys)
