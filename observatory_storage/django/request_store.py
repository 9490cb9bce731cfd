"""``request.observatory``: the store as a request uses it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from django.utils.asyncio import async_unsafe

from observatory_storage.django.app_pool import get_pool, get_trace_writer

if TYPE_CHECKING:
    from observatory_storage.pool import StoragePool
    from observatory_storage.recording.observed_request import ObservedRequest
    from observatory_storage.unit_of_work import UnitOfWork
    from observatory_storage.writers import TraceWriter

__all__ = ["RequestStore"]


class RequestStore:
    """The store as a request uses it: ``request.observatory``, which the middleware sets.

    Attributes:
        span: the span of the request; None if requests are not recorded.
    """

    def __init__(self, span: ObservedRequest | None) -> None:
        self.span = span
        self._uow: UnitOfWork | None = None
        self._read_uow: UnitOfWork | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace of the request, 32 hex digits; None if requests are not recorded."""
        return None if self.span is None else self.span.trace_id

    @property
    def pool(self) -> StoragePool:
        """The project's pool."""
        return get_pool()

    @property
    def trace_writer(self) -> TraceWriter:
        """The project's writer of traces."""
        return get_trace_writer()

    @property
    def uow(self) -> UnitOfWork:
        """The unit of work of this request, which begins when it is first used.

        It ends with the request, or with the last part of a streaming response. It is rolled back
        unless you commit it.

        Raises:
            SynchronousOnlyOperation: the code runs in an event loop, which it would block. Use
                ``sync_to_async`` there, as for Django's own queries.
        """
        if self._uow is None:
            _refuse_event_loop()
            self._uow = get_pool().unit_of_work().__enter__()
        return self._uow

    @property
    def read_uow(self) -> UnitOfWork:
        """A read-only unit of work of this request, beside `uow`.

        It reads from the server of ``OBSERVATORY_DATABASE_READ_URL``, which may be behind; without
        that setting, from the same server as `uow`.

        Raises:
            SynchronousOnlyOperation: as for `uow`.
        """
        if self._read_uow is None:
            _refuse_event_loop()
            self._read_uow = get_pool().unit_of_work(read_only=True).__enter__()
        return self._read_uow

    @property
    def is_open(self) -> bool:
        """Whether a unit of work has begun and not ended."""
        return self._uow is not None or self._read_uow is not None

    def close(self) -> None:
        """End the units of work that have begun. What was not committed is rolled back."""
        units = [unit for unit in (self._read_uow, self._uow) if unit is not None]
        self._uow = self._read_uow = None
        with ExitStack() as ending:  # ends both, whatever fails
            for unit in units:
                ending.push(unit)


@async_unsafe
def _refuse_event_loop() -> None:
    """Raises as Django's own queries do."""
