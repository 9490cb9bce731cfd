"""The spans of a trace as a tree, whatever is missing, doubled or circular in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from observatory_storage.models import TraceSpan

__all__ = ["KEPT_LEVELS", "Node", "arrange", "end_of", "start_of"]

# A chain of spans can be as long as the trace; nobody draws more levels than these.
KEPT_LEVELS = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Node:
    """A span at its place.

    Attributes:
        span: the span.
        depth: 0 for a span without a parent here.
        last: for up to `KEPT_LEVELS` levels, its own last, whether no sibling follows there.
        note: why it stands on the top level although it names a parent; else empty.
        service_changes: it belongs to another service than the span above it.
    """

    span: TraceSpan
    depth: int
    last: tuple[bool, ...]
    note: str
    service_changes: bool


def start_of(span: TraceSpan) -> int:
    """The start in nanoseconds since the epoch."""
    return _nanoseconds(span.start_time) + (span.start_ns or 0)


def end_of(span: TraceSpan) -> int | None:
    """The end in nanoseconds since the epoch; None while the span has none."""
    return None if span.end_time is None else _nanoseconds(span.end_time) + (span.end_ns or 0)


def arrange(spans: Sequence[TraceSpan]) -> Iterator[Node]:
    """Every span once, parents before their children, siblings by start.

    A span whose parent is not there stands on the top level. So does the earliest span of a circle
    of spans that name each other as parents. Where two spans share an id, a child belongs to the
    one during which it started.
    """
    ordered = sorted(spans, key=lambda span: (start_of(span), span.span_id))
    by_id: defaultdict[str, list[TraceSpan]] = defaultdict(list)
    for span in ordered:
        by_id[span.span_id].append(span)
    children: defaultdict[int, list[TraceSpan]] = defaultdict(list)
    tops: list[TraceSpan] = []
    for span in ordered:
        parent = _parent(span, by_id)
        if parent is None:
            tops.append(span)
        else:
            children[id(parent)].append(span)
    seen: set[int] = set()
    for span in tops:
        yield from _walk(span, children, seen, "" if span.parent_span_id is None else "no parent")
    # What is left can only be reached from itself.
    for span in ordered:
        if id(span) not in seen:
            yield from _walk(span, children, seen, "in a circle")


def _walk(
    top: TraceSpan, children: dict[int, list[TraceSpan]], seen: set[int], note: str
) -> Iterator[Node]:
    # A stack of our own: a chain of spans may be longer than Python's.
    stack = [Node(top, 0, (), note, service_changes=True)]
    while stack:
        node = stack.pop()
        if id(node.span) in seen:
            continue
        seen.add(id(node.span))
        yield node
        below = children.get(id(node.span), [])
        for place, span in reversed(list(enumerate(below, 1))):
            stack.append(
                Node(
                    span,
                    node.depth + 1,
                    (*node.last[1 - KEPT_LEVELS :], place == len(below)),
                    note="",
                    service_changes=span.service_name != node.span.service_name,
                )
            )


def _parent(span: TraceSpan, by_id: dict[str, list[TraceSpan]]) -> TraceSpan | None:
    if span.parent_span_id is None:
        return None
    candidates = [other for other in by_id.get(span.parent_span_id, ()) if other is not span]
    if not candidates:
        return None
    began = start_of(span)
    for candidate in candidates:
        end = end_of(candidate)
        if start_of(candidate) <= began and (end is None or began <= end):
            return candidate
    return candidates[0]


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000
