"""A span for each request, around what is recorded while it is handled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Flask, Response, current_app, g, got_request_exception, request

from observatory_storage.recording.observed_request import ObservedRequest, end_former_request
from observatory_storage.writers import TraceWriter

__all__ = ["not_recorded", "record_requests"]

_SPAN: Final = "_observatory_request"
_UNRECORDED: Final = "_observatory_unrecorded"


def record_requests(app: Flask, writer: Callable[[], TraceWriter], service_name: str) -> None:
    """Have the application write a span for each request, unless its view is `not_recorded`.

    What `observe_llm` and `observe` record within the request belongs to the same trace, and so
    does the request of another service that sent ``traceparent``.
    """

    def begin() -> None:
        end_former_request()
        view = current_app.view_functions.get(request.endpoint or "")
        if not hasattr(view, _UNRECORDED):
            span = ObservedRequest(
                writer,
                method=request.method,
                path=request.path,
                scheme=request.scheme,
                user_agent=request.headers.get("User-Agent"),
                traceparent=request.headers.get("traceparent"),
                service_name=service_name,
            )
            if request.url_rule is not None:
                span.note_route(request.url_rule.rule)
            setattr(g, _SPAN, span)
            span.enter()

    app.before_request(begin)
    app.after_request(_note_response)
    app.teardown_request(_end)
    got_request_exception.connect(_note_error, app)


def not_recorded(view: Callable[[], Any]) -> Callable[[], Any]:
    """Mark a view whose requests are no spans."""
    setattr(view, _UNRECORDED, True)
    return view


def _note_response(response: Response) -> Response:
    span: ObservedRequest | None = g.get(_SPAN)
    if span is not None:
        span.note_status(response.status_code)
        # Files and the pages of errors are iterators too, and have a length.
        if response.is_streamed and "Content-Length" not in response.headers:
            # The request ends with the stream. Flask tears its context down before, or twice.
            g.pop(_SPAN)
            span.is_handled = True
            response.call_on_close(span.leave)
    return response


def _note_error(_: Flask, exception: BaseException, **__: object) -> None:
    span: ObservedRequest | None = g.get(_SPAN)
    if span is not None:
        span.fail(exception)


def _end(_: BaseException | None) -> None:
    span: ObservedRequest | None = g.pop(_SPAN, None)
    if span is not None:
        span.leave()
