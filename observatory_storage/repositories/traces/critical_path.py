"""The critical path through a tree of spans, computed on plain numbers; see `SpanTree`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["critical_sections"]

_WHOLE_TRACE: Final = -1  # in place of a span's index


class _Visit:
    """A span on the path: how far back the walk has come, and the children not yet considered."""

    __slots__ = ("children", "cursor", "index", "start")

    def __init__(
        self, index: int, start: int, end: int, children: Iterator[tuple[int, int, int]]
    ) -> None:
        self.index, self.start, self.cursor, self.children = index, start, end, children


def critical_sections(
    roots: Sequence[int],
    children: Sequence[Sequence[int]],
    starts: Sequence[int],
    ends: Sequence[int],
) -> tuple[list[tuple[int, int, int]], set[int]]:
    """The sections of the path as (span, start, end), earliest first, and the spans on the path.

    Each span is entered at most once. Its children are sorted when it is entered.

    Args:
        roots: the indexes of the spans without a parent.
        children: for each span the indexes of its children.
        starts: the start of each span.
        ends: the end of each span.
    """

    def latest_first(
        indexes: Sequence[int], start: int, end: int
    ) -> Iterator[tuple[int, int, int]]:
        """The spans as (start, end, index), clipped to [start, end), the last to end first."""
        clipped = ((max(starts[index], start), min(ends[index], end), index) for index in indexes)
        remaining = [span for span in clipped if span[0] < span[1]]
        remaining.sort(key=lambda span: (-span[1], span[0], span[2]))
        return iter(remaining)

    if not roots:
        return [], set()
    start, end = min(starts), max(ends)
    sections: list[tuple[int, int, int]] = []
    on_path: set[int] = set()
    # An explicit stack: a chain of spans may be longer than Python's recursion limit.
    stack = [_Visit(_WHOLE_TRACE, start, end, latest_first(roots, start, end))]
    while stack:
        visit = stack[-1]
        # Children that end after the cursor ran beside a child that is on the path already.
        child = next((child for child in visit.children if child[1] <= visit.cursor), None)
        child_start, child_end, index = child or (0, visit.start, _WHOLE_TRACE)
        if visit.index != _WHOLE_TRACE and child_end < visit.cursor:
            sections.append((visit.index, child_end, visit.cursor))
        if child is None:
            stack.pop()
            continue
        visit.cursor = child_start
        on_path.add(index)
        below = latest_first(children[index], child_start, child_end)
        stack.append(_Visit(index, child_start, child_end, below))
    sections.reverse()
    return sections, on_path
