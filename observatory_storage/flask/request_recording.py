"""A span for each request, around what is recorded while it is handled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, current_app, g, got_request_exception, request

from observatory_storage.recording.exception_attributes import error_text, type_name
from observatory_storage.recording.observation import Observation, current_observation
from observatory_storage.writers import TraceWriter

__all__ = ["not_recorded", "record_requests"]

_SPAN: Final = "_observatory_request"
_UNRECORDED: Final = "_observatory_unrecorded"
_ATTRIBUTES: Final = {"session_id": "session.id", "user_id": "user.id"}


def record_requests(app: Flask, writer: Callable[[], TraceWriter], service_name: str) -> None:
    """Have the application write a span for each request, unless its view is `not_recorded`.

    What `observe_llm` and `observe` record within the request belongs to the same trace, and so
    does the request of another service that sent ``traceparent``.
    """

    def begin() -> None:
        before = current_observation()
        if isinstance(before, _RequestSpan) and before.is_handled:
            before.leave()  # its response was never closed, as tests may leave it
        view = current_app.view_functions.get(request.endpoint or "")
        if not hasattr(view, _UNRECORDED):
            span = _RequestSpan(writer, service_name)
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
    span: _RequestSpan | None = g.get(_SPAN)
    if span is not None:
        span.set_attribute("http.response.status_code", response.status_code)
        # Files and the pages of errors are iterators too, and have a length.
        if response.is_streamed and "Content-Length" not in response.headers:
            # The request ends with the stream. Flask tears its context down before, or twice.
            span.is_streamed = True
            response.call_on_close(span.leave)
    return response


def _note_error(_: Flask, exception: BaseException, **__: object) -> None:
    span: _RequestSpan | None = g.get(_SPAN)
    if span is not None:
        span.fail(exception)


def _end(_: BaseException | None) -> None:
    span: _RequestSpan | None = g.pop(_SPAN, None)
    if span is not None:
        span.is_handled = True
        if not span.is_streamed:
            span.leave()


class _RequestSpan(Observation):
    """The span of the current request, with the attributes of OpenTelemetry's conventions.

    Attributes:
        is_streamed: whether the response goes on when Flask has handled the request.
        is_handled: whether Flask has handled the request.
    """

    def __init__(self, writer: Callable[[], TraceWriter], service_name: str) -> None:
        self.is_streamed = self.is_handled = False
        route = request.url_rule and request.url_rule.rule
        attributes = {
            "http.request.method": request.method,
            "url.path": request.path,
            "url.scheme": request.scheme,
            "http.route": route,
            "user_agent.original": request.headers.get("User-Agent"),
        }
        super().__init__(
            writer,
            {
                "name": f"{request.method} {route}" if route else request.method,
                "service_name": service_name,
            },
            {key: value for key, value in attributes.items() if value is not None},
            parent=request.headers.get("traceparent"),
            capture_content=False,
        )

    def _write(self, writer: TraceWriter, end_time: datetime, error: BaseException | None) -> None:
        fields, attributes = self._fields, self._attributes
        status = attributes.get("http.response.status_code", HTTPStatus.OK)
        if error is not None:
            attributes["error.type"] = type_name(error)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            attributes["error.type"] = str(status)
        attributes |= {key: fields[name] for name, key in _ATTRIBUTES.items() if name in fields}
        resource = {"service.name": fields["service_name"]} if "service_name" in fields else {}
        if "environment" in fields:
            resource["deployment.environment.name"] = fields["environment"]
        writer.write_span(
            {
                "trace_id": self.trace_id,
                "span_id": self.span_id,
                "parent_span_id": self.parent_span_id,
                "name": fields["name"],
                "kind": "server",
                "service_name": fields.get("service_name"),
                "start_time": self.start_time,
                "end_time": end_time,
                "status": "error" if "error.type" in attributes else "unset",
                "status_message": None if error is None else error_text(error),
                "attributes": attributes,
                "resource_attributes": resource,
                "events": [
                    {**event, "position": position} for position, event in enumerate(self._events)
                ],
            }
        )
