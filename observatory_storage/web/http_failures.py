"""Failures as HTTP reports them: which status an error has, and whether the sender tries again."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from observatory_storage.errors import StorageError, Timeout, ValidationError, is_outage
from observatory_storage.otlp.compression import BodyTooLarge
from observatory_storage.otlp.rpc_status import RpcCode
from observatory_storage.web.request_body import LengthRequired

__all__ = ["HttpFailure", "failure_of"]

# SDKs give up after 10 seconds, and count this wait. A restart of PostgreSQL takes less.
_RETRY_AFTER_SECS: Final = 2
# The sender does not send again what was refused for these, so somebody should know.
_LOSING: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.LENGTH_REQUIRED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)


class HttpFailure(Exception):
    """A request that is answered with an error. Its text is what the sender is told."""

    def __init__(
        self,
        status: HTTPStatus,
        code: RpcCode,
        message: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        violation: tuple[str, str] | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = list(headers)
        self.violation = violation
        self.detail = detail or message

    @property
    def loses_data(self) -> bool:
        """Whether telemetry is lost that an authorized sender has sent."""
        return self.status in _LOSING


def failure_of(error: Exception) -> HttpFailure:
    """How an error is reported to the sender.

    Errors of the sender are told as they are. Of others the sender learns only whether to try
    again, since their text names servers and tables.
    """
    if isinstance(error, BodyTooLarge):
        return HttpFailure(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, RpcCode.RESOURCE_EXHAUSTED, str(error)
        )
    if isinstance(error, LengthRequired):
        return HttpFailure(HTTPStatus.LENGTH_REQUIRED, RpcCode.INVALID_ARGUMENT, str(error))
    if isinstance(error, ValidationError):
        return HttpFailure(
            HTTPStatus.BAD_REQUEST,
            RpcCode.INVALID_ARGUMENT,
            str(error),
            violation=(error.field, error.rule),
        )
    detail = f"{type(error).__name__}: {error}"
    # Storing a request again changes nothing, so it may be tried again after a timeout too.
    if isinstance(error, Timeout) or (isinstance(error, StorageError) and is_outage(error)):
        return HttpFailure(
            HTTPStatus.SERVICE_UNAVAILABLE,
            RpcCode.UNAVAILABLE,
            "the database is not available; try again",
            [("Retry-After", str(_RETRY_AFTER_SECS))],
            detail=detail,
        )
    return HttpFailure(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        RpcCode.INTERNAL,
        "the request could not be stored; the log of the server says why",
        detail=detail,
    )
