"""The spans of a trace as a tree, even where parents are missing, shared or circular."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading.compact_rows import CompactRows
from observatory_storage.repositories.traces.critical_path import critical_sections
from observatory_storage.serialization import Result

__all__ = ["CriticalSection", "SpanNode", "SpanTree", "tree_of_rows"]

S = TypeVar("S")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_PARENT: Final = -1
# The columns that decide the place of a span.
_FACTS: Final = (
    *("start_time", "start_ns", "end_time", "end_ns"),
    *("span_id", "parent_span_id", "service_name"),
)


class _SpanOfRow:
    """Makes the span of a node from its row when it is read, if the node has a row."""

    __slots__ = ("_make", "_row")

    if not TYPE_CHECKING:  # otherwise any attribute would be accepted

        def __getattr__(self, name: str) -> TraceSpan:
            if name != "span":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            span = self._make(self._row)
            object.__setattr__(self, "span", span)
            object.__setattr__(self, "_row", None)
            return span


@dataclass(frozen=True, slots=True, eq=False)
class SpanNode(_SpanOfRow, Result):
    """A span and its place in the tree of its trace.

    Attributes:
        span: the span.
        children: the child spans, ordered by start.
        depth: 0 for a root.
        offset_ns: nanoseconds from the start of the trace's first span to the start of this one.
        duration_ns: its duration in nanoseconds, 0 if its end is before its start. None while it
            has no end.
        self_time_ns: the nanoseconds during which the span ran and none of its children did: its
            duration minus the part of it that its children cover together. None while it has no
            end. A child without an end counts as running.
        is_orphan: whether the span is a root because its parent is not stored.
        breaks_cycle: the span is a root because its parent is the span itself or one of its
            descendants. It is the earliest span of this cycle.
        on_critical_path: whether the critical path contains the span; see `SpanTree`.
    """

    span: TraceSpan
    children: tuple[SpanNode, ...] = field(repr=False)
    depth: int
    offset_ns: int
    duration_ns: int | None
    self_time_ns: int | None
    is_orphan: bool
    breaks_cycle: bool
    on_critical_path: bool

    @property
    def self_time_us(self) -> float | None:
        """`self_time_ns` in microseconds."""
        return None if self.self_time_ns is None else self.self_time_ns / 1000

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """Return the fields by name, with the span as a dictionary and without the children."""
        names = [each.name for each in fields(self) if each.name != "children"]
        values = {name: getattr(self, name) for name in names}
        return {**values, "span": self.span.to_dict(json=json)}


@dataclass(frozen=True, slots=True, eq=False)
class CriticalSection(Result):
    """A section of the critical path: the trace waited for the span, not for its children.

    Attributes:
        node: the span.
        offset_ns: nanoseconds from the start of the trace's first span to the section's start.
        duration_ns: the section's length in nanoseconds; never zero.
    """

    node: SpanNode
    offset_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class SpanTree(Result):
    """The spans of a trace as a tree. Each span occurs once.

    A span is a root when it names no parent, when its parent is not stored (`SpanNode.is_orphan`),
    or when it is the earliest of spans that are each other's ancestors (`SpanNode.breaks_cycle`).

    A client and a server may share a span id. A span whose parent has a shared id becomes the child
    of the span of its own service. If several of these had begun when the child began, it belongs
    to the last of them. If none of its own service had begun, spans of other services are
    considered in the same way.

    The critical path is the chain of spans that determined when the trace ended. It is computed
    backwards, as Jaeger does it. From the end of a span the walk enters the child that ended last.
    From the start of that child it continues with the child that ended last before that moment,
    until it reaches the start of the span. The time between the children is the span's own section.
    Children are clipped to the part of their parent that is on the path, so neither skewed clocks
    nor background work lead beyond the parent. Of children that end together, the walk enters the
    one that began first. A span without duration is not on the path. A span without an end is
    assumed to last until the latest time known in the trace. The roots are treated as children of
    one span that covers the whole trace: the path has a gap where no root was running.

    Attributes:
        roots: the spans without a parent in the tree, by start.
        nodes: all spans, parents before their children, siblings ordered by start.
        critical_path: from the start of the trace to its end; no two sections overlap.
        duration_ns: nanoseconds from the start of the first span to the latest time known.
    """

    roots: tuple[SpanNode, ...]
    nodes: tuple[SpanNode, ...] = field(repr=False)
    critical_path: tuple[CriticalSection, ...] = field(repr=False)
    duration_ns: int

    @property
    def has_root(self) -> bool:
        """Whether a span names no parent. Otherwise the beginning of the trace is not stored."""
        return any(node.span.parent_span_id is None for node in self.roots)

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """Return the nodes and the critical path as flat lists, however deep the tree is.

        The ``parent`` of a node is the index of its parent in ``nodes``, or None for a root. The
        ``node`` of a section in ``critical_path`` is an index in ``nodes``.
        """
        index = {id(node): index for index, node in enumerate(self.nodes)}
        parents = {id(child): index[id(node)] for node in self.nodes for child in node.children}
        return {
            "nodes": [
                node.to_dict(json=json) | {"parent": parents.get(id(node))} for node in self.nodes
            ],
            "critical_path": [
                {
                    "node": index[id(section.node)],
                    "offset_ns": section.offset_ns,
                    "duration_ns": section.duration_ns,
                }
                for section in self.critical_path
            ],
        }

    @classmethod
    def of(cls, spans: Iterable[TraceSpan]) -> SpanTree:
        """Build the tree of the spans of one trace, given in any order."""
        return _Builder(spans, attrgetter(*_FACTS), _node_of_span).tree()


def tree_of_rows(rows: CompactRows[TraceSpan]) -> SpanTree:
    """The tree of the spans of one trace. Each span is made when it is first read from its node."""

    def node_of(row: tuple[Any, ...], **place: Any) -> SpanNode:
        node = object.__new__(SpanNode)
        for name, value in {**place, "_make": rows.make, "_row": row}.items():
            object.__setattr__(node, name, value)
        return node

    return _Builder(rows.rows, itemgetter(*map(rows.names.index, _FACTS)), node_of).tree()


def _node_of_span(span: TraceSpan, **place: Any) -> SpanNode:
    return SpanNode(span=span, **place)


class _Builder(Generic[S]):
    """Builds the tree. A span is represented by its index in the order of starts.

    Loops over plain numbers are cheap and need no recursion.

    Args:
        spans: the spans, or their rows.
        facts_of: returns the values of `_FACTS`.
        node_of: makes the node of a span and its place.
    """

    def __init__(
        self,
        spans: Iterable[S],
        facts_of: Callable[[S], tuple[Any, ...]],
        node_of: Callable[..., SpanNode],
    ) -> None:
        self.node_of = node_of
        timed = [(_nanoseconds(*facts_of(span)[:2]), span) for span in spans]
        timed.sort(key=lambda pair: (pair[0], facts_of(pair[1])[4]))
        self.starts = [start for start, _ in timed]
        self.spans = [span for _, span in timed]
        del timed  # of a large trace it takes much memory
        self.facts_of = facts_of
        self.known_ends: list[int | None] = []
        for start, span in zip(self.starts, self.spans, strict=True):
            _, _, end, end_ns, *_ = facts_of(span)
            self.known_ends.append(None if end is None else max(_nanoseconds(end, end_ns), start))
        known = (end for end in self.known_ends if end is not None)
        self.latest = max([*self.starts[-1:], *known], default=0)
        self.ends = [self.latest if end is None else end for end in self.known_ends]

    def tree(self) -> SpanTree:
        parents, orphans = self._parents()
        cycle_breakers = _break_cycles(parents)
        children: list[list[int]] = [[] for _ in parents]
        roots: list[int] = []
        for index, parent in enumerate(parents):
            (roots if parent == _NO_PARENT else children[parent]).append(index)
        sections, on_path = critical_sections(roots, children, self.starts, self.ends)
        first = self.starts[0] if self.starts else 0
        order = list(_depth_first(roots, children))
        nodes: list[Any] = [None] * len(order)
        for index, depth in reversed(order):  # children before their parents
            start, end = self.starts[index], self.known_ends[index]
            nodes[index] = self.node_of(
                self.spans[index],
                children=tuple(nodes[child] for child in children[index]),
                depth=depth,
                offset_ns=start - first,
                duration_ns=None if end is None else end - start,
                self_time_ns=self._self_time(index, children[index]),
                is_orphan=index in orphans,
                breaks_cycle=index in cycle_breakers,
                on_critical_path=index in on_path,
            )
        return SpanTree(
            roots=tuple(nodes[index] for index in roots),
            nodes=tuple(nodes[index] for index, _ in order),
            critical_path=tuple(
                CriticalSection(nodes[index], start - first, end - start)
                for index, start, end in sections
            ),
            duration_ns=self.latest - first,
        )

    def _parents(self) -> tuple[list[int], set[int]]:
        """The parent of each span or `_NO_PARENT`, and the spans whose parent is not stored."""
        first: dict[str, int] = {}
        by_id: defaultdict[str, list[int]] = defaultdict(list)  # the ids that spans share
        for index, span in enumerate(self.spans):
            span_id = self.facts_of(span)[4]
            if first.setdefault(span_id, index) != index:
                by_id[span_id].append(index)
        by_service: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for span_id, indexes in by_id.items():
            indexes.insert(0, first[span_id])
            for index in indexes:
                by_service[span_id, self.facts_of(self.spans[index])[6]].append(index)
        parents, orphans = [], set()
        for index, span in enumerate(self.spans):
            *_, parent_id, service_name = self.facts_of(span)
            if parent_id is None:
                parents.append(_NO_PARENT)
            elif parent_id not in first:
                parents.append(_NO_PARENT)
                orphans.add(index)
            elif parent_id not in by_id:
                parents.append(first[parent_id])
            else:
                same_service = by_service.get((parent_id, service_name), ())
                parents.append(self._parent(index, by_id[parent_id], same_service))
        return parents, orphans

    def _parent(self, child: int, same_id: Sequence[int], same_service: Sequence[int]) -> int:
        """The parent of a span, chosen from the spans that have the parent's id."""
        for candidates in (same_service, same_id):
            begun = bisect_right(candidates, self.starts[child], key=self.starts.__getitem__)
            last = begun - 1
            if last >= 0 and candidates[last] == child:
                last -= 1
            if last >= 0:
                return candidates[last]
        return same_id[0] if same_id[0] != child else same_id[1]

    def _self_time(self, index: int, children: Sequence[int]) -> int | None:
        end = self.known_ends[index]
        if end is None:
            return None
        covered_until, self_time = self.starts[index], 0
        for child in children:  # by start
            start = min(self.starts[child], end)
            if start > covered_until:
                self_time += start - covered_until
            covered_until = max(covered_until, min(self.ends[child], end))
        return self_time + end - covered_until


def _break_cycles(parents: list[int]) -> set[int]:
    """Make the earliest span of each cycle a root, and return these spans."""
    roots: set[int] = set()
    checked = bytearray(len(parents))
    for start in range(len(parents)):
        index, chain = start, dict[int, None]()
        while index != _NO_PARENT and not checked[index]:
            if index in chain:
                ancestors = list(chain)
                earliest = min(ancestors[ancestors.index(index) :])
                parents[earliest] = _NO_PARENT
                roots.add(earliest)
                break
            chain[index] = None
            index = parents[index]
        for checked_index in chain:
            checked[checked_index] = 1
    return roots


def _depth_first(roots: Sequence[int], children: Sequence[list[int]]) -> Iterator[tuple[int, int]]:
    """Each span with its depth, parents before their children."""
    # An explicit stack: a chain of spans may be longer than Python's recursion limit.
    stack = [(index, 0) for index in reversed(roots)]
    while stack:
        index, depth = stack.pop()
        yield index, depth
        stack += [(child, depth + 1) for child in reversed(children[index])]


def _nanoseconds(time: datetime, fraction: int | None) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000 + (fraction or 0)
