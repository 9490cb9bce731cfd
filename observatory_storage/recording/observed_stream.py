"""Iterators that tell an observation of each item, and of their end."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

__all__ = ["AsyncObservedStream", "ObservedStream"]

T = TypeVar("T")


class Listener(Protocol):
    """What a stream tells."""

    def take_item(self, item: object) -> None: ...
    def end_stream(self, error: BaseException | None = None) -> None: ...


class _Observed:
    """What both kinds of streams share."""

    _is_ended = True  # for `__del__`, if the constructor fails

    def __init__(self, listener: Listener, source: Any) -> None:
        self._listener = listener
        self._source = source
        self._is_ended = False

    def _end(self, error: BaseException | None = None) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._listener.end_stream(error)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_source" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._source, name)

    def __del__(self) -> None:
        self._end()  # of a stream that nobody has read to its end


class ObservedStream(_Observed, Iterator[T], Generic[T]):
    """An iterator that `Observation.stream` observes.

    It yields the items of the iterator that it was made from, and has its other attributes. It ends
    the observation when it is read to its end, raises, is closed, or is no longer referenced.
    """

    def __init__(self, listener: Listener, source: Iterable[T]) -> None:
        super().__init__(listener, source)
        self._iterator = iter(source)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            item = next(self._iterator)
        except StopIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        self._listener.take_item(item)
        return item

    def close(self) -> None:
        """Close the iterator, if it can be closed, and end the observation."""
        try:
            if (close := getattr(self._source, "close", None)) is not None:
                close()
        finally:
            self._end()

    def __enter__(self) -> Self:
        if (enter := getattr(self._source, "__enter__", None)) is not None:
            enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if (leave := getattr(self._source, "__exit__", None)) is not None:
                leave(kind, error, trace)
        finally:
            self._end(error)


class AsyncObservedStream(_Observed, AsyncIterator[T], Generic[T]):
    """An asynchronous iterator that `Observation.stream` observes; see `ObservedStream`."""

    def __init__(self, listener: Listener, source: AsyncIterable[T]) -> None:
        super().__init__(listener, source)
        self._iterator = aiter(source)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            item = await anext(self._iterator)
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        self._listener.take_item(item)
        return item

    async def aclose(self) -> None:
        """Close the iterator, if it can be closed, and end the observation."""
        try:
            for name in ("aclose", "close"):  # of generators, of the SDKs of providers
                if (close := getattr(self._source, name, None)) is not None:
                    await close()
                    break
        finally:
            self._end()

    async def close(self) -> None:
        """The same, by the name that the SDKs of providers use."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        if (enter := getattr(self._source, "__aenter__", None)) is not None:
            await enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if (leave := getattr(self._source, "__aexit__", None)) is not None:
                await leave(kind, error, trace)
        finally:
            self._end(error)
