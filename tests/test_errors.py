"""One tree of errors, which can be pickled, and their messages."""

from __future__ import annotations

import inspect
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from observatory_storage import (
    BatchError,
    CacheError,
    ConfigError,
    Conflict,
    ConnectionLost,
    MigrationError,
    NotFound,
    PoolError,
    ReadOnly,
    Rejected,
    StorageError,
    Timeout,
    TraceSpan,
    ValidationError,
    errors,
)
from tests.rows.samples import LEAST

TREE: list[tuple[type[StorageError], type[Exception], bool]] = [
    (ConfigError, StorageError, False),
    (ConnectionLost, StorageError, True),
    (NotFound, LookupError, False),
    (ValidationError, ValueError, False),
    (Conflict, StorageError, False),
    (MigrationError, StorageError, False),
    (Timeout, TimeoutError, False),
    (PoolError, StorageError, True),
    (ReadOnly, StorageError, False),
    (CacheError, StorageError, True),
    (BatchError, StorageError, False),
]


@pytest.mark.parametrize(("kind", "also", "retryable"), TREE)
def test_error_classes_derive_from_standard_exceptions(
    kind: type[StorageError], also: type[Exception], retryable: bool
) -> None:
    assert issubclass(kind, StorageError)
    assert issubclass(kind, also)
    assert kind.retryable is retryable


def test_every_error_derives_from_storage_error() -> None:
    found = {
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert found == {StorageError, *(kind for kind, _, _ in TREE)}


ONE_OF_EACH: list[StorageError] = [
    StorageError(),
    *(kind() for kind, _, _ in TREE if kind not in (ValidationError, BatchError)),
    Conflict("in the way", retryable=True),
    ValidationError("name", "", "must not be empty"),
    ValidationError("name", threading.Lock(), "must be text", index=3),
    BatchError([Rejected(4, {"name": ""}, ValidationError("name", "", "must not be empty"))]),
    BatchError([Rejected(at, threading.Lock(), Timeout()) for at in (1, 2)]),
    BatchError([Rejected(0, TraceSpan(**LEAST["trace_spans"]), NotFound("x"))]),
]


def _raise(at: int) -> None:
    raise ONE_OF_EACH[at]


def test_errors_survive_a_process_pool() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as executor:
        for at, error in enumerate(ONE_OF_EACH):
            came_back = executor.submit(_raise, at).exception(timeout=60)
            assert type(came_back) is type(error)
            assert came_back.retryable is error.retryable
            if "lock" not in str(error):  # the addresses differ
                assert str(came_back) == str(error)


def test_message_of_each_error() -> None:
    assert str(Timeout()) == "The server did not finish in the time allowed."
    error = ValidationError("name", 5, "must be text", index=3)
    assert str(error) == "row 3: name=5: must be text"
    assert (error.field, error.value, error.rule, error.index) == ("name", 5, "must be text", 3)
    one = Rejected(7, {}, error)
    assert str(BatchError([one])) == "1 refused; row 7: row 3: name=5: must be text"
    assert str(BatchError([one, one])).endswith("must be text (and 1 more)")


class _Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("é\x00\ud800", "'é\\x00\\ud800'"),
        ({"b": 1, "a": [None]}, "{'a': [None], 'b': 1}"),
        (_Hostile(), "<_Hostile instance at"),
        ([_Hostile()], "[<_Hostile instance at"),
        ("x" * 10_000, "'" + "x" * 119 + "…"),
        (list(range(10_000)), "[0, 1, 2, 3,"),
    ],
)
def test_values_are_shown_shortened(value: object, text: str) -> None:
    message = errors.shown(value)
    assert message.startswith(text)
    assert len(message) <= 121


def test_value_whose_repr_fails_is_shown_by_its_type() -> None:
    assert errors.shown(10**5000) == "<int>"
    assert errors.shown({"a": 10**5000}) == "<dict>"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert errors.shown(deep).startswith("[[[")
