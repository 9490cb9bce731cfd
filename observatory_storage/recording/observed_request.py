"""`ObservedRequest`: the span of a request that a web framework handles."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Final

from observatory_storage.recording.observation import Observation, current_observation
from observatory_storage.writers import TraceWriter

__all__ = ["ObservedRequest", "end_former_request"]

_STATUS: Final = "http.response.status_code"


def end_former_request() -> None:
    """End the span of a request of this context whose response nobody has closed, as in a test."""
    former = current_observation()
    if isinstance(former, ObservedRequest) and former.is_handled:
        former.leave()


class ObservedRequest(Observation):
    """The span of a request, with the attributes of OpenTelemetry's conventions.

    What `observe_llm` and `observe` record within the request belongs to the same trace, and so
    does the request of another service that sent ``traceparent``.

    Args:
        target: returns the writer.
        method: the HTTP method.
        path: the path of the URL.
        scheme: "http" or "https".
        user_agent: the header of this name.
        traceparent: the header of this name.
        service_name: the service that handles the request; None if it is not known.

    Attributes:
        is_handled: whether the framework has handled the request; a streaming response may go on.
    """

    def __init__(
        self,
        target: Callable[[], object],
        *,
        method: str,
        path: str,
        scheme: str,
        user_agent: str | None,
        traceparent: str | None,
        service_name: str | None,
    ) -> None:
        self.is_handled = False
        self._method = method
        self._view_error: BaseException | None = None
        attributes = {
            "http.request.method": method,
            "url.path": path,
            "url.scheme": scheme,
            "user_agent.original": user_agent,
        }
        self._is_discarded = False
        super().__init__(
            target,
            {"service_name": service_name},
            {key: value for key, value in attributes.items() if value is not None},
            parent=traceparent,
            capture_content=False,
        )

    def note_route(self, route: str) -> None:
        """Note the pattern of the URL that led to the view, which becomes part of the name."""
        self.set_attribute("http.route", route)

    def discard(self) -> None:
        """Store no span of this request."""
        self._is_discarded = True

    def note_view_error(self, error: BaseException) -> None:
        """Note what the view raised. It is the span's error if the status says that it failed."""
        self._view_error = error

    def note_status(self, status_code: int) -> None:
        """Note the status of the response. From 500 on, the span has failed."""
        self.set_attribute(_STATUS, status_code)
        error, self._view_error = self._view_error, None
        if error is not None and status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.fail(error)

    def _write(self, writer: TraceWriter, end_time: datetime, error: BaseException | None) -> None:
        if self._is_discarded:
            return
        attributes = self._attributes
        status = attributes.get(_STATUS, HTTPStatus.OK)
        if error is None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            attributes["error.type"] = str(status)
        name = self._fields.get("name")  # the view may have named it
        if name is None:
            name = " ".join(filter(None, [self._method, attributes.get("http.route")]))
        self._write_row(writer, end_time, error, name=name, kind="server")
