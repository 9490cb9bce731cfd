"""The spans of a trace as a tree, whatever is missing, doubled or circular in it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.traces.critical_path import critical_sections

__all__ = ["CriticalSection", "SpanNode", "SpanTree"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NONE: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class SpanNode:
    """A span at its place in its trace.

    Attributes:
        span: the span.
        children: the spans that name it as their parent, by start.
        depth: 0 for a root.
        self_time_ns: how long, in nanoseconds, it was running while none of its children was: its
            duration less the union of theirs, as far as they lie within it. None while it has no
            end. A child without an end counts as running.
        is_orphan: it is a root because the parent that it names is not there.
        breaks_cycle: it is a root although its parent is there, since that is itself or one of
            its descendants; it is the earliest span of its cycle.
        on_critical_path: the critical path leads through it; see `SpanTree`.
    """

    span: TraceSpan
    children: tuple[SpanNode, ...] = field(repr=False)
    depth: int
    self_time_ns: int | None
    is_orphan: bool
    breaks_cycle: bool
    on_critical_path: bool

    @property
    def self_time_us(self) -> float | None:
        """`self_time_ns` in microseconds."""
        return None if self.self_time_ns is None else self.self_time_ns / 1000


@dataclass(frozen=True, slots=True, eq=False)
class CriticalSection:
    """A stretch of the critical path, in which none of the span's children is what is waited for.

    Attributes:
        node: the span.
        offset_ns: nanoseconds from the start of the trace's first span to where this begins.
        duration_ns: how long it is, in nanoseconds; never zero.
    """

    node: SpanNode
    offset_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class SpanTree:
    """The spans of a trace, each once, under their parents.

    A span is a root when it names no parent, when its parent is not there (`SpanNode.is_orphan`),
    or when it is the earliest of spans that are each other's ancestors (`SpanNode.breaks_cycle`).
    Where several spans share the id of a parent, a child belongs to the last of them that had
    begun when it began, one of its own service before those of others.

    The critical path is what the end of the trace waited for, walked backwards as Jaeger does it.
    From the end of a span the walk enters the child that ends last; from the start of that child
    it goes on with the child that ends last of those that had ended by then, and so on to the
    span's own start. What lies between is the span's own. Children are cut to the part of their
    parent that is on the path, so that neither skewed clocks nor work that goes on in the
    background leads beyond it; of several that end together, the one that began first is taken. A
    span that takes no time is not on the path. A span without an end is taken to last until the
    latest time that the trace knows. The roots are taken for children of one span that covers the
    whole trace: where no root was running, the path has a gap.

    Attributes:
        roots: the spans without a parent here, by start.
        nodes: all of them, parents before their children, siblings by start.
        critical_path: from the start of the trace to its end; no two sections overlap.
    """

    roots: tuple[SpanNode, ...]
    nodes: tuple[SpanNode, ...] = field(repr=False)
    critical_path: tuple[CriticalSection, ...] = field(repr=False)

    @property
    def has_root(self) -> bool:
        """Whether there is a span that names no parent: else the trace's beginning is missing."""
        return any(node.span.parent_span_id is None for node in self.roots)

    @classmethod
    def of(cls, spans: Iterable[TraceSpan]) -> SpanTree:
        """The tree of the spans of one trace, which may come in any order."""
        return _Builder(spans).tree()


class _Builder:
    """A span is its place in the order of starts: trees of numbers are cheap and know no depth."""

    def __init__(self, spans: Iterable[TraceSpan]) -> None:
        timed = ((_nanoseconds(span.start_time, span.start_ns), span) for span in spans)
        ordered = sorted(timed, key=lambda pair: (pair[0], pair[1].span_id))
        self.starts = [start for start, _ in ordered]
        self.spans = [span for _, span in ordered]
        self.known_ends = [
            None if span.end_time is None else max(_nanoseconds(span.end_time, span.end_ns), start)
            for start, span in ordered
        ]
        ended = (end for end in self.known_ends if end is not None)
        latest = max([*self.starts[-1:], *ended], default=0)
        self.ends = [latest if end is None else end for end in self.known_ends]

    def tree(self) -> SpanTree:
        parents, orphans = self._parents()
        cycles = _break_cycles(parents)
        children: list[list[int]] = [[] for _ in parents]
        tops: list[int] = []
        for place, parent in enumerate(parents):
            (tops if parent == _NONE else children[parent]).append(place)
        path, visited = critical_sections(tops, children, self.starts, self.ends)
        order = list(_depth_first(tops, children))
        nodes: dict[int, SpanNode] = {}
        for place, depth in reversed(order):  # children before their parents
            nodes[place] = SpanNode(
                span=self.spans[place],
                children=tuple(nodes[child] for child in children[place]),
                depth=depth,
                self_time_ns=self._self_time(place, children[place]),
                is_orphan=place in orphans,
                breaks_cycle=place in cycles,
                on_critical_path=place in visited,
            )
        first = self.starts[0] if self.starts else 0
        return SpanTree(
            roots=tuple(nodes[place] for place in tops),
            nodes=tuple(nodes[place] for place, _ in order),
            critical_path=tuple(
                CriticalSection(nodes[place], begin - first, end - begin)
                for place, begin, end in path
            ),
        )

    def _parents(self) -> tuple[list[int], set[int]]:
        """The place of each span's parent, or `_NONE`; and which of these name one nonetheless."""
        by_id: defaultdict[str, list[int]] = defaultdict(list)
        for place, span in enumerate(self.spans):
            by_id[span.span_id].append(place)
        by_service: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for span_id, places in by_id.items():
            if len(places) > 1:
                for place in places:
                    by_service[span_id, self.spans[place].service_name].append(place)
        parents, orphans = [], set()
        for place, span in enumerate(self.spans):
            wanted = span.parent_span_id
            if wanted is None:
                parents.append(_NONE)
            elif wanted not in by_id:
                parents.append(_NONE)
                orphans.add(place)
            else:
                named = by_id[wanted]
                own = by_service.get((wanted, span.service_name), ())
                parents.append(self._parent(place, named, own))
        return parents, orphans

    def _parent(self, place: int, named: Sequence[int], own: Sequence[int]) -> int:
        """Which of the spans with the parent's id is meant."""
        if len(named) == 1:
            return named[0]
        for candidates in (own, named):
            at = bisect_right(candidates, self.starts[place], key=self.starts.__getitem__) - 1
            if at >= 0 and candidates[at] == place:
                at -= 1
            if at >= 0:
                return candidates[at]
        return named[0] if named[0] != place else named[1]

    def _self_time(self, place: int, children: Sequence[int]) -> int | None:
        end = self.known_ends[place]
        if end is None:
            return None
        reached, alone = self.starts[place], 0
        for child in children:  # by start
            start = min(self.starts[child], end)
            if start > reached:
                alone += start - reached
            reached = max(reached, min(self.ends[child], end))
        return alone + end - reached


def _break_cycles(parents: list[int]) -> set[int]:
    """Make the earliest span of each cycle a root; these spans."""
    broken: set[int] = set()
    checked = bytearray(len(parents))
    for start in range(len(parents)):
        at, chain = start, dict[int, None]()
        while at != _NONE and not checked[at]:
            if at in chain:
                members = list(chain)
                earliest = min(members[members.index(at) :])
                parents[earliest] = _NONE
                broken.add(earliest)
                break
            chain[at] = None
            at = parents[at]
        for each in chain:
            checked[each] = 1
    return broken


def _depth_first(tops: Sequence[int], children: Sequence[list[int]]) -> Iterator[tuple[int, int]]:
    """Each place with its depth, parents first."""
    # A stack of our own: a chain of spans may be longer than Python's.
    stack = [(place, 0) for place in reversed(tops)]
    while stack:
        place, depth = stack.pop()
        yield place, depth
        stack += [(child, depth + 1) for child in reversed(children[place])]


def _nanoseconds(time: datetime, fraction: int | None) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000 + (fraction or 0)
