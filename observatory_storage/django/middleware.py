"""The middleware: ``request.observatory``, and if it is switched on, a span for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async

from observatory_storage.django.app_settings import app_settings
from observatory_storage.django.request_span import RequestSpan
from observatory_storage.django.request_store import RequestStore

__all__ = ["ObservatoryMiddleware"]


class ObservatoryMiddleware:
    """Gives each request `RequestStore` as ``request.observatory``.

    If ``OBSERVATORY_RECORD_REQUESTS`` is True, it also records a span for each request. The class
    works under WSGI and ASGI. Place it first, below Django's ``SecurityMiddleware``.

    Raises:
        ConfigError: a setting of the app is invalid.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        app_settings()  # a wrong setting stops the server when it starts, not with a request

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._respond_async(request)
        span = _begin(request)
        try:
            response = self._get_response(request)
        except BaseException:
            request.observatory.close()
            raise
        _end(request, span, response)
        if not response.streaming:
            request.observatory.close()
        return response

    async def _respond_async(self, request: Any) -> Any:
        span = _begin(request)
        answer = cast(Awaitable[Any], self._get_response(request))
        try:
            response = await answer
        except BaseException:
            await _close(request.observatory)
            raise
        _end(request, span, response)
        if not response.streaming:
            await _close(request.observatory)
        return response

    def process_exception(self, request: Any, exception: Exception) -> None:
        """Note the exception of a view, whose type the span of the request gets."""
        if request.observatory_span is not None:
            request.observatory_span.error = exception


def _begin(request: Any) -> RequestSpan:
    span = RequestSpan(request)
    request.observatory = RequestStore(span.trace_id, span.span_id)
    request.observatory_span = span
    return span


def _end(request: Any, span: RequestSpan, response: Any) -> None:
    if app_settings().record_requests:
        span.record(response.status_code)
    if response.streaming:
        # Its parts may use the unit of work; the server closes the response after the last one.
        response._resource_closers.append(request.observatory.close)


async def _close(store: RequestStore) -> None:
    if store.is_open:
        await sync_to_async(store.close)()
