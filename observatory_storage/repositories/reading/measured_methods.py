"""Translates the errors of a repository's methods, and reports their calls to the pool's hooks."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from typing import Any, Final, TypeVar

from observatory_storage.errors import translated
from observatory_storage.operations import (
    OK,
    Hooks,
    OperationKind,
    StoreOperation,
    outcome_of,
)
from observatory_storage.read_only_guard import ReadOnlyGuard
from observatory_storage.repositories.reading.result_streams import ResultStream
from observatory_storage.serialization import Result

__all__ = ["measured"]

R = TypeVar("R", bound=type)
_END: Final = object()


def measured(signal: str) -> Callable[[R], R]:
    """A decorator of a repository: its public methods are operations, inherited ones included.

    They raise errors of the driver as the matching `StorageError`.

    A method that calls another one is one operation. The repository has its `Reader` in
    ``_reader``.

    Args:
        signal: the signal of the repository, which operations have as their ``table``.
    """

    def decorate(repository: R) -> R:
        for name, method in inspect.getmembers(repository, inspect.isfunction):
            if not name.startswith("_"):
                setattr(repository, name, _measured(signal, name, method))
        return repository

    return decorate


def _measured(signal: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    operation: OperationKind = "erase" if name.startswith("delete") else "query"

    def guarded(guard: ReadOnlyGuard) -> Callable[..., Any]:
        return functools.partial(guard.call, f"{signal}.{name}", method)

    @functools.wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        reader = self._reader
        hooks: Hooks | None = reader.hooks
        run = method if reader.guard is None else guarded(reader.guard)
        if hooks is None or not hooks.registered or reader.is_measured or not hooks.are_called:
            with translated():
                return run(self, *args, **kwargs)
        reader.is_measured = True
        began = time.perf_counter()
        result, outcome = None, OK
        try:
            with translated():
                result = run(self, *args, **kwargs)
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            reader.is_measured = False
            seconds = time.perf_counter() - began
            if not isinstance(result, Iterator):
                hooks.emit(
                    StoreOperation(operation, signal, name, outcome, seconds, _rows_of(result))
                )
        fact = StoreOperation(operation, signal, name)
        if isinstance(result, ResultStream):
            result.read_through(functools.partial(_counted, hooks, fact, seconds))
        elif isinstance(result, Iterator):
            return _counted(hooks, fact, seconds, result)
        return result

    return call


def _counted(
    hooks: Hooks,
    operation: StoreOperation,
    seconds: float,
    rows: Iterator[Any],
    size: Callable[[Any], int] = lambda _: 1,
) -> Iterator[Any]:
    """The rows of an iterator. At its end, or when it is closed, the operation is reported.

    Args:
        hooks: the hooks.
        operation: the operation, without what is known at the end.
        seconds: how long it took to make the iterator.
        rows: the rows, or batches of them.
        size: how many rows an item of the iterator has.
    """
    count, outcome = 0, OK
    try:
        while True:
            began = time.perf_counter()
            try:
                row = next(rows, _END)
            except BaseException as error:
                outcome = outcome_of(error)
                raise
            finally:
                seconds += time.perf_counter() - began
            if row is _END:
                return
            count += size(row)
            yield row
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            close()
        kind, table, method = operation.operation, operation.table, operation.method
        hooks.emit(StoreOperation(kind, table, method, outcome, seconds, count))


def _rows_of(result: Any) -> int:
    """How many rows a method has returned, or erased."""
    if result is None:
        return 0
    if isinstance(result, Result) and type(result).__name__.startswith("Deleted"):
        return sum(astuple(result))  # type: ignore[call-overload]  # it is a dataclass of counts
    return len(result) if isinstance(result, Sequence) else 1
