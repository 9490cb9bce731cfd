"""The store of the application whose response streams, after its request has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final

from flask import Flask, Response

from observatory_storage.flask.app_store import AppStore

__all__ = ["follow_streams", "streaming_store"]

_store: Final[ContextVar[AppStore | None]] = ContextVar("_streaming_store", default=None)


def streaming_store() -> AppStore | None:
    """The store of the response a part of which is made here and now; None outside of streams."""
    return _store.get()


def follow_streams(app: Flask, store: AppStore) -> None:
    """Have `streaming_store` know the application's responses that stream."""

    def follow(response: Response) -> Response:
        if response.is_streamed and not response.direct_passthrough:
            response.response = _StreamedParts(response.response, store)
        return response

    app.after_request(follow)


class _StreamedParts:
    """The parts of a response. While one is made, and at the end, the store is that of the stream.

    It is not set in between, since the server then does something else in the same context.
    """

    def __init__(self, parts: Iterable[Any], store: AppStore) -> None:
        self._parts = parts
        self._iterator: Iterator[Any] | None = None
        self._store = store

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        token = _store.set(self._store)
        try:
            if self._iterator is None:
                self._iterator = iter(self._parts)
            return next(self._iterator)
        finally:
            _store.reset(token)

    def close(self) -> None:
        """Close the parts, as a server does when the client has left."""
        token = _store.set(self._store)
        try:
            if hasattr(self._parts, "close"):
                self._parts.close()
        finally:
            _store.reset(token)
