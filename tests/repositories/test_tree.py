"""The tree of a trace: places, self times, and the critical path."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import SpanNode, SpanTree, TraceSpan
from tests.repositories.samples import START, span_key

MICROSECOND = timedelta(microseconds=1)


def a_node(
    number: int, start_ns: int, end_ns: int | None, parent: int | None = None, service: str = "s"
) -> TraceSpan:
    """A span from its times in nanoseconds after START."""
    return TraceSpan(
        trace_id=UUID(int=1),
        span_id=span_key(number),
        parent_span_id=None if parent is None else span_key(parent),
        name=str(number),
        service_name=service,
        start_time=START + start_ns // 1000 * MICROSECOND,
        start_ns=start_ns % 1000,
        end_time=None if end_ns is None else START + end_ns // 1000 * MICROSECOND,
        end_ns=0 if end_ns is None else end_ns % 1000,
    )


def names(nodes: Iterable[SpanNode]) -> list[str]:
    return [node.span.name for node in nodes]


def drawn(tree: SpanTree) -> list[str]:
    return ["." * node.depth + node.span.name for node in tree.nodes]


def path(tree: SpanTree) -> list[tuple[str, int, int]]:
    return [
        (part.node.span.name, part.offset_ns, part.offset_ns + part.duration_ns)
        for part in tree.critical_path
    ]


def test_spans_stand_under_their_parents_by_start() -> None:
    tree = SpanTree.of(
        [
            a_node(3, 40, 90, 1),
            a_node(4, 50, 60, 3),
            a_node(2, 10, 30, 1),
            a_node(1, 0, 100),
            a_node(5, 45, 50, 3),
        ]
    )
    assert drawn(tree) == ["1", ".2", ".3", "..5", "..4"]
    (root,) = tree.roots
    assert tree.nodes[0] is root
    assert names(root.children) == ["2", "3"]
    assert names(root.children[1].children) == ["5", "4"]
    assert [node.self_time_ns for node in tree.nodes] == [30, 20, 35, 5, 10]
    assert root.self_time_us == 0.03
    assert not any(node.is_orphan or node.breaks_cycle for node in tree.nodes)
    assert all(node.on_critical_path for node in tree.nodes)
    assert tree.has_root
    assert path(tree) == [
        ("1", 0, 10),
        ("2", 10, 30),
        ("1", 30, 40),
        ("3", 40, 45),
        ("5", 45, 50),
        ("4", 50, 60),
        ("3", 60, 90),
        ("1", 90, 100),
    ]


def test_no_spans_make_an_empty_tree() -> None:
    tree = SpanTree.of([])
    assert (tree.roots, tree.nodes, tree.critical_path, tree.has_root) == ((), (), (), False)


def test_one_span_is_its_own_critical_path() -> None:
    tree = SpanTree.of([a_node(1, 5, 7)])
    assert path(tree) == [("1", 0, 2)]
    assert tree.nodes[0].self_time_ns == 2


def test_a_span_without_duration_is_not_on_the_critical_path() -> None:
    tree = SpanTree.of([a_node(1, 0, 0), a_node(2, 0, 0, 1)])
    assert drawn(tree) == ["1", ".2"]
    assert tree.critical_path == ()
    assert [node.self_time_ns for node in tree.nodes] == [0, 0]
    tree = SpanTree.of([a_node(1, 0, 9), a_node(2, 9, 9, 1)])
    assert path(tree) == [("1", 0, 9)]


def test_the_critical_path_leaves_out_parallel_spans() -> None:
    spans = [a_node(1, 0, 100), a_node(2, 20, 90, 1), a_node(3, 10, 60, 1), a_node(4, 0, 20, 1)]
    tree = SpanTree.of(spans)
    assert path(tree) == [("4", 0, 20), ("2", 20, 90), ("1", 90, 100)]
    assert names(node for node in tree.nodes if not node.on_critical_path) == ["3"]
    assert tree.roots[0].self_time_ns == 10


def test_the_longest_of_spans_that_end_together_is_on_the_path() -> None:
    tree = SpanTree.of([a_node(1, 0, 100), a_node(2, 50, 100, 1), a_node(3, 10, 200, 1)])
    assert path(tree) == [("1", 0, 10), ("3", 10, 100)]
    same = SpanTree.of([a_node(1, 0, 100), a_node(3, 50, 100, 1), a_node(2, 50, 100, 1)])
    assert path(same) == [("1", 0, 50), ("2", 50, 100)]


def test_a_span_whose_parent_is_missing_is_a_root_and_marked() -> None:
    tree = SpanTree.of([a_node(1, 0, 100), a_node(3, 20, 50, 2), a_node(4, 30, 40, 3)])
    assert drawn(tree) == ["1", "3", ".4"]
    assert [node.is_orphan for node in tree.nodes] == [False, True, False]
    assert tree.roots[0].self_time_ns == 100
    assert tree.has_root


def test_without_a_root_every_orphan_is_one() -> None:
    tree = SpanTree.of([a_node(2, 0, 40, 1), a_node(3, 60, 90, 1), a_node(4, 10, 20, 2)])
    assert drawn(tree) == ["2", ".4", "3"]
    assert not tree.has_root
    assert path(tree) == [("2", 0, 10), ("4", 10, 20), ("2", 20, 40), ("3", 60, 90)]


def test_the_critical_path_takes_the_roots_that_end_last() -> None:
    tree = SpanTree.of([a_node(1, 0, 50), a_node(2, 10, 60), a_node(3, 80, 90), a_node(4, 0, 5)])
    assert names(tree.roots) == ["1", "4", "2", "3"]
    assert path(tree) == [("4", 0, 5), ("2", 10, 60), ("3", 80, 90)]


def test_a_child_of_spans_that_share_an_id_belongs_to_the_last_that_had_begun() -> None:
    again = [a_node(1, 0, 100), a_node(2, 10, 20, 1), a_node(2, 30, 40, 1)]
    tree = SpanTree.of([*again, a_node(3, 15, 16, 2), a_node(4, 35, 36, 2), a_node(5, 5, 6, 2)])
    assert drawn(tree) == ["1", ".2", "..5", "..3", ".2", "..4"]


def test_a_child_belongs_to_the_span_of_its_own_service_where_two_share_an_id() -> None:
    shared = [a_node(1, 0, 100, service="client"), a_node(1, 10, 90, service="server")]
    below = [a_node(2, 20, 30, 1, "client"), a_node(3, 20, 30, 1, "server"), a_node(4, 20, 30, 1)]
    tree = SpanTree.of([*shared, *below])
    assert drawn(tree) == ["1", ".2", "1", ".3", ".4"]
    # Of its own service none had begun.
    early = SpanTree.of([*shared, a_node(5, 5, 6, 1, "server")])
    assert drawn(early) == ["1", ".5", "1"]


def test_a_span_is_not_its_own_parent() -> None:
    tree = SpanTree.of([a_node(1, 0, 9), a_node(2, 1, 8, 2), a_node(3, 2, 3, 2)])
    assert drawn(tree) == ["1", "2", ".3"]
    assert [node.breaks_cycle for node in tree.nodes] == [False, True, False]
    assert not any(node.is_orphan for node in tree.nodes)
    twins = SpanTree.of([a_node(1, 0, 9, 1), a_node(1, 1, 8, 1)])
    assert drawn(twins) == ["1", ".1"]
    assert [node.breaks_cycle for node in twins.nodes] == [True, False]


def test_a_cycle_is_broken_at_its_earliest_span() -> None:
    tree = SpanTree.of(
        [
            a_node(1, 0, 5, 4),  # hangs on the cycle, and is earlier than all of it
            a_node(2, 30, 40, 4),
            a_node(3, 20, 60, 2),
            a_node(4, 10, 50, 3),
            a_node(5, 35, 36, 2),
        ]
    )
    assert drawn(tree) == ["4", ".1", ".2", "..3", "..5"]
    assert [node.breaks_cycle for node in tree.nodes] == [True, False, False, False, False]
    assert not tree.has_root


def test_a_span_without_an_end_is_taken_to_last() -> None:
    tree = SpanTree.of([a_node(1, 0, None), a_node(2, 10, 30, 1), a_node(3, 20, None, 2)])
    assert [node.self_time_ns for node in tree.nodes] == [None, 10, None]
    assert path(tree) == [("1", 0, 10), ("2", 10, 20), ("3", 20, 30)]
    only = SpanTree.of([a_node(1, 0, None)])
    assert (only.nodes[0].self_time_us, path(only)) == (None, [])
    running = SpanTree.of([a_node(1, 0, 100), a_node(2, 40, None, 1)])
    assert running.roots[0].self_time_ns == 40
    assert path(running) == [("1", 0, 40), ("2", 40, 100)]


def test_children_count_as_far_as_they_lie_within_their_parent() -> None:
    tree = SpanTree.of(
        [
            a_node(1, 100, 200),
            a_node(2, 50, 120, 1),  # begins too early
            a_node(3, 180, 300, 1),  # goes on in the background
            a_node(4, 10, 20, 1),
            a_node(5, 400, 500, 1),
        ]
    )
    assert tree.roots[0].self_time_ns == 60
    assert names(tree.roots[0].children) == ["4", "2", "3", "5"]
    # From the first span, which is a child here, to the end of its root.
    assert path(tree) == [("2", 90, 110), ("1", 110, 170), ("3", 170, 190)]


def test_times_are_exact_to_the_nanosecond_wherever_they_lie() -> None:
    late = START.replace(year=9999)
    span, child = a_node(1, 1, 1_000_001), a_node(2, 2, 999_999, 1)
    for each in (span, child):
        each.start_time = each.start_time.replace(year=9999)
        assert each.end_time is not None
        each.end_time = each.end_time.replace(year=9999)
    assert span.start_time == late
    tree = SpanTree.of([span, child])
    assert [node.self_time_ns for node in tree.nodes] == [3, 999_997]
    assert tree.roots[0].self_time_us == 0.003
    assert path(tree) == [("1", 0, 1), ("2", 1, 999_998), ("1", 999_998, 1_000_000)]


def _random_spans(seed: int) -> list[TraceSpan]:
    source = random.Random(seed)
    count = source.randint(1, 14)
    spans = []
    for number in range(1, count + 1):
        start = source.randint(0, 20)
        end = None if source.random() < 0.1 else start + source.randint(0, 15)
        parent = source.choice([None, *range(1, count + 3)])
        spans.append(a_node(number, start, end, parent, source.choice("ab")))
    source.shuffle(spans)
    return spans


@pytest.mark.parametrize("seed", range(60))
def test_trees_agree_with_a_simulation_of_each_nanosecond(seed: int) -> None:
    spans = _random_spans(seed)
    tree = SpanTree.of(spans)
    first = min(map(_ns, spans))
    known = [(_ns(span), _end(span)) for span in spans]
    latest = max(max(start, end or start) for start, end in known)

    def busy(node: SpanNode) -> range:
        end = _end(node.span)
        return range(_ns(node.span), latest if end is None else end)

    assert sorted(names(tree.nodes)) == sorted(span.name for span in spans)
    for node in tree.nodes:
        alone = [t for t in busy(node) if not any(t in busy(child) for child in node.children)]
        assert node.self_time_ns == (None if _end(node.span) is None else len(alone))
        assert all(child.span.parent_span_id == node.span.span_id for child in node.children)
        assert all(child.depth == node.depth + 1 for child in node.children)
    found = path(tree)
    assert found == sorted(found, key=lambda part: part[1])
    assert all(one[2] <= other[1] for one, other in pairwise(found))
    assert found == [
        (name, start - first, end - first)
        for name, start, end in _slow_path(list(tree.roots), 0, latest, busy)
    ]


def _ns(span: TraceSpan) -> int:
    return (span.start_time - START) // MICROSECOND * 1000 + span.start_ns


def _end(span: TraceSpan) -> int | None:
    if span.end_time is None:
        return None
    return (span.end_time - START) // MICROSECOND * 1000 + span.end_ns


def _slow_path(
    children: list[SpanNode], start: int, cursor: int, busy: Any, who: str = ""
) -> list[tuple[str, int, int]]:
    """The definition, word by word: earliest section first."""

    def cut(node: SpanNode) -> tuple[int, int]:
        return max(busy(node).start, start), min(busy(node).stop, end)

    end, found = cursor, list[tuple[str, int, int]]()
    while True:
        ended = [c for c in children if cut(c)[0] < cut(c)[1] <= cursor]
        last = min(ended, key=lambda c: (-cut(c)[1], cut(c)[0], c.span.span_id), default=None)
        until = start if last is None else cut(last)[1]
        if who and until < cursor:
            found.insert(0, (who, until, cursor))
        if last is None:
            return found
        cursor = cut(last)[0]
        found[:0] = _slow_path(list(last.children), *cut(last), busy, last.span.name)


def test_a_chain_of_spans_may_be_longer_than_any_stack() -> None:
    count = 30_000
    spans = [a_node(n, n, 2 * count - n, n - 1 if n else None) for n in range(1, count)]
    tree = SpanTree.of(reversed(spans))
    assert [node.depth for node in tree.nodes] == list(range(count - 1))
    assert len(tree.critical_path) == 2 * len(spans) - 1
    assert sum(part.duration_ns for part in tree.critical_path) == 2 * count - 2
    assert len(repr(tree)) < 1000


def test_many_spans_of_one_id_are_placed_soon() -> None:
    spans = [a_node(1, n, n + 10, 1) for n in range(5_000)]
    assert len(SpanTree.of(spans).nodes) == 5_000
