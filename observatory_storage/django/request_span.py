"""The span of a request, around what is recorded while it is handled."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from observatory_storage.django.app_pool import get_trace_writer
from observatory_storage.django.app_settings import app_settings
from observatory_storage.recording.exception_attributes import error_text, type_name
from observatory_storage.recording.observation import Observation, current_observation
from observatory_storage.writers import TraceWriter

__all__ = ["RequestSpan", "end_former_request"]

_ATTRIBUTES: Final = {"session_id": "session.id", "user_id": "user.id"}


def end_former_request() -> None:
    """End the span of a request of this thread whose response nobody has closed, as in a test."""
    former = current_observation()
    if isinstance(former, RequestSpan) and former.is_handled:
        former.leave()


class RequestSpan(Observation):
    """The span of a request, with the attributes of OpenTelemetry's conventions.

    What `observe_llm` and `observe` record within the request belongs to the same trace, and so
    does the request of another service that sent ``traceparent``.

    Attributes:
        is_handled: whether Django has handled the request; a streaming response may go on.
    """

    def __init__(self, request: Any) -> None:
        self.is_handled = False
        attributes = {
            "http.request.method": request.method,
            "url.path": request.path,
            "url.scheme": request.scheme,
            "user_agent.original": request.headers.get("User-Agent"),
        }
        super().__init__(
            get_trace_writer,
            {"name": request.method, "service_name": app_settings().service_name},
            {key: value for key, value in attributes.items() if value is not None},
            parent=request.headers.get("traceparent"),
            capture_content=False,
        )

    def note_response(self, request: Any, response: Any) -> None:
        """Note the status of the response, and the route that led to its view."""
        self.is_handled = True
        self.set_attribute("http.response.status_code", response.status_code)
        if request.resolver_match is not None:
            route = f"/{request.resolver_match.route}"
            self.set_attribute("http.route", route)
            if self._fields["name"] == request.method:  # unless the view has named it
                self.update(name=f"{request.method} {route}")

    def _write(self, writer: TraceWriter, end_time: datetime, error: BaseException | None) -> None:
        fields, attributes = self._fields, self._attributes
        status = attributes.get("http.response.status_code", HTTPStatus.OK)
        if error is not None:
            attributes["error.type"] = type_name(error)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            attributes["error.type"] = str(status)
        attributes |= {key: fields[name] for name, key in _ATTRIBUTES.items() if name in fields}
        resource = {"service.name": fields["service_name"]}
        if "environment" in fields:
            resource["deployment.environment.name"] = fields["environment"]
        writer.write_span(
            {
                "trace_id": self.trace_id,
                "span_id": self.span_id,
                "parent_span_id": self.parent_span_id,
                "name": fields["name"],
                "kind": "server",
                "service_name": fields["service_name"],
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
