"""The tree of a trace is read from its stored spans."""

from __future__ import annotations

import pickle
from uuid import UUID

import pytest

from observatory_storage import CopyWriter, NotFound, StorageError, StoragePool, ValidationError
from observatory_storage.repositories.traces import spans as spans_module
from tests.repositories.samples import DAY, SECOND, START, a_span, span_key, statements, trace_key


def test_the_tree_of_a_trace_is_read_in_two_statements(pool: StoragePool) -> None:
    rows = [
        a_span(1, 1, end_time=START + 2 * DAY, attributes={"k": 1}),
        a_span(1, 2, START + DAY, parent_span_id=span_key(1), start_ns=5, end_ns=5),
        a_span(1, 3, START + DAY, parent_span_id=span_key(9)),
        a_span(2, 4),
    ]
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        uow.traces.get_tree(trace_key(2))
        with statements(pool.engine) as seen:
            tree = uow.traces.get_tree(trace_key(1))
        assert len(seen) == 2
        assert "attributes" not in seen[1].partition(" FROM ")[0]
        whole = uow.traces.get_tree(UUID(trace_key(1)), payload=True)
    root, child, orphan = tree.nodes
    assert [int(node.span.span_id, 16) for node in tree.nodes] == [1, 2, 3]
    assert (root.depth, child.depth, orphan.depth, orphan.is_orphan) == (0, 1, 0, True)
    assert child.self_time_us == 1_000_000
    assert root.self_time_us == 2 * 86_400_000_000 - 1_000_000
    assert whole.roots[0].span.attributes == {"k": 1}
    with pytest.raises(StorageError, match="attributes was not loaded"):
        _ = root.span.attributes


def test_the_tree_of_a_large_trace_makes_its_spans_when_they_are_read(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        a_span(1, 1, end_time=START + DAY, service_name="a", model="m"),
        a_span(1, 2, START + SECOND, parent_span_id=span_key(1), total_cost_usd=1),
        a_span(1, 2, START + 2 * SECOND, parent_span_id=span_key(1), service_name="a"),
        a_span(1, 3, START + 3 * SECOND, parent_span_id=span_key(2), service_name="a"),
        a_span(1, 4, START + 4 * SECOND, parent_span_id=span_key(9), end_time=None),
        a_span(1, 5, START + 5 * SECOND, parent_span_id=span_key(5)),
    ]
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        plain = uow.traces.get_tree(trace_key(1))
        monkeypatch.setattr(spans_module, "_MOST_ENTITIES", 0)
        with statements(pool.engine) as seen:
            large = uow.traces.get_tree(trace_key(1))
        assert len(seen) == 2
        assert [node.span is node.span for node in large.nodes] == [True] * 6
        assert large.to_dict() == plain.to_dict()
        assert large.nodes[0].span.trace_id is large.nodes[1].span.trace_id
        restored = pickle.loads(pickle.dumps(large.nodes[0]))
        assert restored.span.model == "m"
        with pytest.raises(StorageError, match="attributes was not loaded"):
            _ = large.nodes[0].span.attributes
        with pytest.raises(AttributeError, match="'SpanNode' object has no attribute 'spam'"):
            _ = large.nodes[0].spam  # type: ignore[attr-defined]
        large.nodes[0].span.environment = "changed"
        uow.commit()
        whole = uow.traces.get_tree(trace_key(1), payload=True)
    assert whole.nodes[0].span.environment == "changed"
    assert whole.nodes[0].span.attributes is not None


def test_a_trace_without_spans_has_an_empty_tree_and_no_trace_none(pool: StoragePool) -> None:
    row = {"trace_id": trace_key(1), "service_name": "service", "start_time": START}
    CopyWriter(pool).write_traces([row])
    with pool.unit_of_work() as uow:
        assert uow.traces.get_tree(trace_key(1)).nodes == ()
        with pytest.raises(NotFound):
            uow.traces.get_tree(trace_key(2))
        with pytest.raises(ValidationError):
            uow.traces.get_tree("")
