"""The span of a request, with the attributes of OpenTelemetry's conventions for HTTP servers."""

from __future__ import annotations

import logging
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from observatory_storage import ids
from observatory_storage.django.app_pool import get_trace_writer
from observatory_storage.django.app_settings import app_settings

__all__ = ["RequestSpan", "parent_of"]

logger = logging.getLogger(__name__)

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-"
)
_SERVER_ERROR: Final = 500


def parent_of(request: Any) -> tuple[str | None, str | None]:
    """The trace and the span that the header ``traceparent`` names; None and None without it."""
    found = _TRACEPARENT.match(request.META.get("HTTP_TRACEPARENT", ""))
    return (found[1], found[2]) if found else (None, None)


class RequestSpan:
    """The span of one request, from when this is created."""

    def __init__(self, request: Any) -> None:
        trace_id, self._parent_id = parent_of(request)
        self.trace_id = trace_id or ids.new_trace_id()
        self.span_id = ids.new_span_id()
        self._request = request
        self._start_time = datetime.now(UTC)
        self._began = time.perf_counter_ns()
        self.error: Exception | None = None

    def record(self, status_code: int) -> None:
        """Have the project's writer buffer the span. Never raises: a request goes on without it."""
        try:
            get_trace_writer().write_span(self._row(status_code))
        except Exception:
            logger.exception("the span of a request could not be recorded")

    def _row(self, status_code: int) -> dict[str, Any]:
        request = self._request
        match = request.resolver_match
        route = f"/{match.route}" if match is not None else None
        duration = timedelta(microseconds=(time.perf_counter_ns() - self._began) // 1000)
        attributes = {
            "http.request.method": request.method,
            "url.path": request.path,
            "url.scheme": request.scheme,
            "http.route": route,
            "http.response.status_code": status_code,
            "user_agent.original": request.META.get("HTTP_USER_AGENT"),
        }
        failed = status_code >= _SERVER_ERROR
        if failed:
            attributes["error.type"] = (
                f"{type(self.error).__module__}.{type(self.error).__qualname__}"
                if self.error is not None
                else str(status_code)
            )
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_span_id": self._parent_id,
            "name": f"{request.method} {route}" if route else str(request.method),
            "kind": "server",
            "service_name": app_settings().service_name,
            "start_time": self._start_time,
            "end_time": self._start_time + duration,
            "status": "error" if failed else "unset",
            "status_message": str(self.error) if failed and self.error is not None else None,
            "attributes": {name: value for name, value in attributes.items() if value is not None},
        }
