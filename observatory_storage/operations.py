"""What the store does, as facts for hooks: logs, metrics and traces of the store itself.

Code that reads, writes or maintains measures what it does with `Hooks.measure`. Without a hook,
nothing is measured and no clock is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, runtime_checkable

from observatory_storage.errors import ValidationError, translate
from observatory_storage.processes import process_lock
from observatory_storage.serialization import Result

__all__ = [
    "LOST",
    "OK",
    "SPOOLED",
    "AnyHook",
    "Hook",
    "Hooks",
    "Measurement",
    "OperationKind",
    "StoreOperation",
    "outcome_of",
    "unobserved",
]

logger = logging.getLogger(__name__)

OK: Final = "ok"
SPOOLED: Final = "spooled"
LOST: Final = "lost"
_NO_ERRORS: Final = frozenset((OK, SPOOLED, "hit", "miss"))

OperationKind = Literal[
    "acquire",
    "cache",
    "erase",
    "flush",
    "ingest",
    "maintain",
    "migrate",
    "publish",
    "query",
    "replay",
    "write",
]


@dataclass(frozen=True, slots=True)
class StoreOperation(Result):
    """Something that the store did, as hooks are told when it is over.

    Attributes:
        operation: what was done: ``flush`` (a buffered writer wrote a batch), ``replay`` (rows of a
            spool), ``write`` (a call of `CopyWriter`), ``ingest`` (a transaction of an OTLP
            request), ``query`` and ``erase`` (a call of a repository), ``acquire`` (a connection
            was taken from the pool), ``maintain`` (a step of maintenance), ``migrate``, ``cache``
            or ``publish``.
        table: the table of the most rows; for a call of a repository its signal, such as
            ``traces``; None if there is no table.
        method: ``copy`` or ``insert`` if rows were written, the repository's method such as
            ``list``, or the step of maintenance; None if there is no method.
        outcome: ``ok``; ``spooled`` if rows went to the spool; ``hit``, ``miss`` or ``error`` of
            the cache; ``lost`` if rows could not be published; otherwise the name of the error's
            class, such as ``ConnectionLost``.
        seconds: how long it took, retries included. For an iterator, the time in which rows were
            read, without the time of the loop over them.
        rows: the rows that were written, read, erased, spooled, published or lost.
        bytes: the bytes that were sent for rows, failed attempts included; 0 if not known.
        retries: the attempts that were repeated after transient errors.
        rejected: the rows that were refused for their data.
        rows_by_table: `rows` by table if a batch was written, which may be of several tables;
            otherwise None.
    """

    operation: OperationKind
    table: str | None = None
    method: str | None = None
    outcome: str = OK
    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    retries: int = 0
    rejected: int = 0
    rows_by_table: Mapping[str, int] | None = None

    @property
    def failed(self) -> bool:
        """Whether the outcome is an error."""
        return self.outcome not in _NO_ERRORS


@runtime_checkable
class Hook(Protocol):
    """Is told what the store does; see `StoragePool.add_hook`.

    A hook is called in the thread that did the operation, after it: it should return quickly. Many
    threads may call it at once. If it raises, the error is logged and the operation goes on.
    """

    def on_operation(self, operation: StoreOperation, /) -> None:
        """Take note of an operation that is over."""


_Call = Callable[[StoreOperation], object]
AnyHook = Hook | _Call
# Set while a hook runs, so that what it does with the store is not reported to it again.
_is_unobserved: Final[ContextVar[bool]] = ContextVar("_is_unobserved", default=False)


@contextmanager
def unobserved() -> Iterator[None]:
    """What this thread does in the block is reported to no hook.

    Hooks themselves run in such a block. A thread of a hook of your own that uses the store needs
    it, unless it wants to be told of its own operations.
    """
    token = _is_unobserved.set(True)
    try:
        yield
    finally:
        _is_unobserved.reset(token)


def outcome_of(error: BaseException) -> str:
    """The outcome of an operation that raised the error."""
    return type(translate(error) or error).__name__


class Measurement:
    """One operation while it runs: use it as a context manager, and set what becomes known.

    A block that raises gives the error's class as the outcome.
    """

    outcome = OK
    rows = 0
    bytes = 0
    retries = 0
    rejected = 0
    rows_by_table: Mapping[str, int] | None = None

    def __init__(
        self, hooks: Hooks, operation: OperationKind, table: str | None, method: str | None
    ) -> None:
        self._hooks = hooks
        self.operation: OperationKind = operation
        self.table = table
        self.method = method

    def retried(self, _: object = None) -> None:
        """Count an attempt that is repeated."""
        self.retries += 1

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._began
        operation = StoreOperation(
            self.operation,
            self.table,
            self.method,
            self.outcome if error is None else outcome_of(error),
            seconds,
            self.rows,
            self.bytes,
            self.retries,
            self.rejected,
            self.rows_by_table,
        )
        self._hooks.emit(operation)


class _Unmeasured(Measurement):
    """Stands for every operation while there is no hook: it keeps nothing, and reads no clock."""

    def __init__(self) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_UNMEASURED: Final = _Unmeasured()


class Hooks:
    """The hooks of a pool. Threads can add, remove and call them at once; a forked child has them.

    Attributes:
        registered: the hooks, in the order in which they are called.
    """

    def __init__(self) -> None:
        self.registered: tuple[AnyHook, ...] = ()
        self._calls: tuple[tuple[AnyHook, _Call], ...] = ()
        self._reported: set[tuple[int, type[Exception]]] = set()

    @property
    def are_called(self) -> bool:
        """Whether an operation of this thread would be reported to anybody."""
        return bool(self._calls) and not _is_unobserved.get()

    def add(self, hook: AnyHook) -> None:
        """Add a hook: an object with `Hook.on_operation`, or a function.

        Adding a hook again has no effect.

        Raises:
            ValidationError: it is neither.
        """
        call = getattr(hook, "on_operation", hook)
        if not callable(call) or isinstance(hook, type):
            rule = "must have a method on_operation, or be a function"
            raise ValidationError("hook", hook, rule)
        with process_lock():
            if all(known is not hook for known in self.registered):
                self._calls = (*self._calls, (hook, call))
                self.registered = (*self.registered, hook)

    def remove(self, hook: AnyHook) -> None:
        """Remove a hook. A hook that was not added is ignored."""
        with process_lock():
            self._calls = tuple(pair for pair in self._calls if pair[0] is not hook)
            self.registered = tuple(known for known in self.registered if known is not hook)
            # A later hook may get the same id.
            self._reported = {pair for pair in self._reported if pair[0] != id(hook)}

    def measure(
        self, operation: OperationKind, table: str | None = None, method: str | None = None
    ) -> Measurement:
        """Measure the operation of a block, and report it when the block ends."""
        if not self._calls or _is_unobserved.get():
            return _UNMEASURED
        return Measurement(self, operation, table, method)

    def emit(self, operation: StoreOperation) -> None:
        """Report an operation to all hooks. Their errors are logged, each kind once at a hook."""
        if _is_unobserved.get():
            return
        token = _is_unobserved.set(True)
        try:
            for hook, call in self._calls:
                try:
                    call(operation)
                except Exception as error:  # noqa: BLE001 - the application's own code; the operation is done
                    self._report(hook, error)
        finally:
            _is_unobserved.reset(token)

    def _report(self, hook: AnyHook, error: Exception) -> None:
        known = (id(hook), type(error))
        if known in self._reported:
            logger.debug("the hook %r failed again: %r", hook, error)
            return
        self._reported.add(known)
        logger.error(
            "the hook %r failed, and is called for further operations; further errors of this kind"
            " are logged at level DEBUG",
            hook,
            exc_info=error,
        )
