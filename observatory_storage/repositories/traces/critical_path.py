"""The critical path through a tree of spans, on plain numbers: see `SpanTree` for what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["critical_sections"]

_WHOLE: Final = -1  # in place of a span: the whole trace


class _Visit:
    """A span on the path: where the walk has come to in it, and the children still to look at."""

    __slots__ = ("children", "cursor", "start", "who")

    def __init__(
        self, who: int, start: int, end: int, children: Iterator[tuple[int, int, int]]
    ) -> None:
        self.who, self.start, self.cursor, self.children = who, start, end, children


def critical_sections(
    tops: Sequence[int],
    children: Sequence[Sequence[int]],
    starts: Sequence[int],
    ends: Sequence[int],
) -> tuple[list[tuple[int, int, int]], set[int]]:
    """The sections (span, start, end) of the path, earliest first, and the spans that it enters.

    Each span is entered once at most, and its children are sorted once then.
    """

    def latest_first(places: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The children, cut to the part of their parent that is on the path."""
        cut = ((max(starts[at], start), min(ends[at], end), at) for at in places)
        some = [(begin, finish, at) for begin, finish, at in cut if begin < finish]
        some.sort(key=lambda child: (-child[1], child[0], child[2]))
        return iter(some)

    if not tops:
        return [], set()
    begin, finish = min(starts), max(ends)
    path: list[tuple[int, int, int]] = []
    visited: set[int] = set()
    # A stack of our own: a chain of spans may be longer than Python's.
    stack = [_Visit(_WHOLE, begin, finish, latest_first(tops, begin, finish))]
    while stack:
        at = stack[-1]
        # Those that end later ran beside a child that the path has been through.
        entered = next((child for child in at.children if child[1] <= at.cursor), None)
        begin, finish, who = entered or (0, at.start, _WHOLE)
        if at.who != _WHOLE and finish < at.cursor:
            path.append((at.who, finish, at.cursor))
        if entered is None:
            stack.pop()
            continue
        at.cursor = begin
        visited.add(who)
        stack.append(_Visit(who, begin, finish, latest_first(children[who], begin, finish)))
    path.reverse()
    return path, visited
