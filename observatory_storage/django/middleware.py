"""The middleware: ``request.observatory``, and if it is switched on, a span for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async

from observatory_storage.django.app_pool import get_trace_writer
from observatory_storage.django.app_settings import app_settings
from observatory_storage.django.request_store import RequestStore
from observatory_storage.recording.observed_request import ObservedRequest, end_former_request

__all__ = ["ObservatoryMiddleware"]

_OWN_URLS: Final = "observatory_storage"  # `app_name` of `urls`


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
        store = _begin(request)
        try:
            response = self._get_response(request)
        except BaseException as error:
            _leave(store, error)
            store.close()
            raise
        if not _goes_on(request, response):
            store.close()
        return response

    async def _respond_async(self, request: Any) -> Any:
        store = _begin(request)
        try:
            response = await cast(Awaitable[Any], self._get_response(request))
        except BaseException as error:
            _leave(store, error)
            await _close(store)
            raise
        if not _goes_on(request, response):
            await _close(store)
        return response

    def process_view(self, request: Any, *_: Any) -> None:
        """Do not record what asks for the store itself: probes, Prometheus and senders of OTLP."""
        if request.observatory.span is not None and _OWN_URLS in request.resolver_match.app_names:
            request.observatory.span.discard()

    def process_exception(self, request: Any, exception: Exception) -> None:
        """Note the exception of a view. Django answers some with a status below 500."""
        if request.observatory.span is not None:
            request.observatory.span.note_view_error(exception)


def _begin(request: Any) -> RequestStore:
    end_former_request()
    settings = app_settings()
    span = None
    if settings.record_requests:
        span = ObservedRequest(
            get_trace_writer,
            method=request.method,
            path=request.path,
            scheme=request.scheme,
            user_agent=request.headers.get("User-Agent"),
            traceparent=request.headers.get("traceparent"),
            service_name=settings.service_name,
        )
        span.enter()
    request.observatory = RequestStore(span)
    return cast(RequestStore, request.observatory)


def _goes_on(request: Any, response: Any) -> bool:
    """Whether the request ends with the last part of its response, rather than now."""
    store: RequestStore = request.observatory
    if store.span is not None:
        store.span.is_handled = True
        store.span.note_status(response.status_code)
        if request.resolver_match is not None:
            store.span.note_route(f"/{request.resolver_match.route}")
    if not response.streaming:
        _leave(store)
        return False
    # Its parts may use the store; the server closes the response after the last one.
    response._resource_closers += [store.close, lambda: _leave(store)]
    return True


def _leave(store: RequestStore, error: BaseException | None = None) -> None:
    if store.span is not None:
        store.span.leave(error)


async def _close(store: RequestStore) -> None:
    if store.is_open:
        await sync_to_async(store.close)()
