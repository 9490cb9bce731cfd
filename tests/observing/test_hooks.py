"""Hooks are told of operations, and cannot harm them."""

from __future__ import annotations

import logging
import os
import pickle
from typing import Any

import pytest

from observatory_storage import operations
from observatory_storage.errors import ConnectionLost, ValidationError
from observatory_storage.operations import Hook, Hooks, StoreOperation, unobserved

SOME = StoreOperation("query", "traces", "list")


class Keeping:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.operations: list[StoreOperation] = []

    def on_operation(self, operation: StoreOperation, /) -> None:
        self.operations.append(operation)


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


def test_objects_and_functions_are_hooks(hooks: Hooks) -> None:
    keeping, seen = Keeping(), list[StoreOperation]()
    assert isinstance(keeping, Hook)
    hooks.add(keeping)
    hooks.add(seen.append)
    hooks.emit(SOME)
    assert keeping.operations == seen == [SOME]


def test_a_hook_that_is_added_twice_is_called_once(hooks: Hooks) -> None:
    keeping = Keeping()
    hooks.add(keeping)
    hooks.add(keeping)
    hooks.emit(SOME)
    assert keeping.operations == [SOME]


def test_a_removed_hook_is_not_called(hooks: Hooks) -> None:
    keeping = Keeping()
    hooks.add(keeping)
    hooks.remove(keeping)
    hooks.remove(keeping)
    hooks.emit(SOME)
    assert keeping.operations == []
    assert hooks.registered == ()


@pytest.mark.parametrize("value", [None, "print", 3, Keeping])
def test_what_is_no_hook_is_refused(hooks: Hooks, value: Any) -> None:
    with pytest.raises(ValidationError, match=r"hook.*must have a method on_operation"):
        hooks.add(value)


def test_an_operation_cannot_be_changed_and_can_be_pickled() -> None:
    with pytest.raises(AttributeError):
        SOME.rows = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(SOME)) == SOME


def test_a_hook_that_raises_keeps_no_other_hook_from_being_called(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: StoreOperation) -> None:
        raise RuntimeError("the exporter is gone")

    keeping = Keeping()
    hooks.add(fail)
    hooks.add(keeping)
    for _ in range(3):
        hooks.emit(SOME)
    assert len(keeping.operations) == 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert "fail" in record.getMessage()


def test_each_kind_of_error_of_a_hook_is_logged_once(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [KeyError("a"), ValueError("b"), KeyError("c")]

    def fail(_: StoreOperation) -> None:
        raise errors.pop(0)

    hooks.add(fail)
    for _ in range(3):
        hooks.emit(SOME)
    shown = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert shown == [KeyError, ValueError]


def test_an_interrupt_in_a_hook_is_raised(hooks: Hooks) -> None:
    def interrupt(_: StoreOperation) -> None:
        raise KeyboardInterrupt

    hooks.add(interrupt)
    with pytest.raises(KeyboardInterrupt):
        hooks.emit(SOME)
    hooks.remove(interrupt)
    keeping = Keeping()
    hooks.add(keeping)
    hooks.emit(SOME)  # what follows is observed again
    assert keeping.operations == [SOME]


def test_what_a_hook_does_itself_is_reported_to_no_hook(hooks: Hooks) -> None:
    seen: list[StoreOperation] = []

    def store(operation: StoreOperation) -> None:
        seen.append(operation)
        with hooks.measure("write", "logs"):
            pass

    hooks.add(store)
    hooks.emit(SOME)
    assert seen == [SOME]


def test_nothing_is_reported_from_an_unobserved_block(hooks: Hooks) -> None:
    seen: list[StoreOperation] = []
    hooks.add(seen.append)
    with unobserved(), hooks.measure("write"):
        pass
    assert seen == []
    with hooks.measure("write"):
        pass
    assert len(seen) == 1


def test_a_measurement_reports_what_was_set(hooks: Hooks) -> None:
    seen: list[StoreOperation] = []
    hooks.add(seen.append)
    with hooks.measure("write", "logs", "copy") as measured:
        measured.rows, measured.bytes = 7, 700
        measured.retried()
    (operation,) = seen
    assert operation.seconds > 0
    expected = {"operation": "write", "table": "logs", "method": "copy", "outcome": "ok"}
    counted = {"rows": 7, "bytes": 700, "retries": 1, "rejected": 0}
    assert {**expected, **counted}.items() <= operation.to_dict().items()


def test_the_outcome_of_a_failure_is_the_class_of_its_error(hooks: Hooks) -> None:
    seen: list[StoreOperation] = []
    hooks.add(seen.append)
    with pytest.raises(ConnectionLost), hooks.measure("query"):
        raise ConnectionLost("gone")
    with pytest.raises(KeyboardInterrupt), hooks.measure("query"):
        raise KeyboardInterrupt
    assert [one.outcome for one in seen] == ["ConnectionLost", "KeyboardInterrupt"]


def test_no_clock_is_read_without_hooks(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "time", None)
    with hooks.measure("write", "logs") as measured:
        measured.rows = 3
        assert measured.rows == 0


def test_hooks_of_the_parent_are_called_in_a_forked_child(hooks: Hooks) -> None:
    reading, writing = os.pipe()
    hooks.add(lambda operation: os.write(writing, (operation.table or "").encode()))
    child = os.fork()
    if child == 0:
        hooks.emit(SOME)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"traces"
    os.close(reading)
    os.close(writing)
