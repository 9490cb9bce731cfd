"""Receives OTLP over HTTP, as a WSGI application.

The status codes and bodies of responses follow OTLP's specification, section "OTLP/HTTP Response":
https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from observatory_storage import otlp
from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.otlp.compression import (
    MAX_BODY_BYTES,
    UnknownCoding,
    available_codings,
    codings_of,
    detect_coding,
)
from observatory_storage.otlp.response import Encoding
from observatory_storage.otlp.rpc_status import RpcCode, rpc_status
from observatory_storage.web.authorization import Authorize
from observatory_storage.web.http_failures import HttpFailure, failure_of
from observatory_storage.web.request_body import read_request_body

if TYPE_CHECKING:
    from observatory_storage.pool import StoragePool

__all__ = ["otlp_app"]

logger = logging.getLogger(__name__)

_Ingest = Callable[["StoragePool", bytes], otlp.IngestResult]

_PATHS: Final[dict[str, _Ingest]] = {
    "/v1/traces": otlp.ingest_traces,
    "/v1/metrics": otlp.ingest_metrics,
    "/v1/logs": otlp.ingest_logs,
}
_CONTENT_TYPES: Final[dict[str, Encoding]] = {
    "application/x-protobuf": "protobuf",
    "application/json": "json",
}
_NAMES_OF_TYPES: Final = {encoding: name for name, encoding in _CONTENT_TYPES.items()}
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_UTF8: Final = ("utf-8", "utf8", "us-ascii")


def otlp_app(
    pool: StoragePool,
    *,
    authorize: Authorize | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> WSGIApplication:
    """A WSGI application that receives OTLP over HTTP: traces, metrics and logs.

    It answers ``POST`` to ``/v1/traces``, ``/v1/metrics`` and ``/v1/logs``, below the path at which
    it is mounted. Bodies are protobuf or JSON, by their ``Content-Type``, and may be compressed
    (``Content-Encoding: gzip``, ``zstd`` or ``deflate``). What a request carries is committed when
    it is answered, and storing it again changes nothing.

    Example, in a Flask application::

        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        app.wsgi_app = DispatcherMiddleware(
            app.wsgi_app, {"/otlp": otlp_app(pool, authorize=bearer_token(token))}
        )

    Args:
        pool: the pool to write to.
        authorize: called with the WSGI environment of each request, before anything of its body is
            read. True lets it pass, False answers 401, and a `PermissionError` 403 with its
            message. See `bearer_token`. None lets every request pass.
        max_body_bytes: the bound on a body, before and after decompression. A larger one is
            answered with 413. The default is 64 MiB.

    Raises:
        ValidationError: the bound is not a positive number.
    """
    if isinstance(max_body_bytes, bool) or max_body_bytes < 1:
        raise ValidationError("max_body_bytes", max_body_bytes, "must be a positive number")
    return _OtlpApp(pool, authorize, max_body_bytes)


@dataclass(frozen=True, slots=True)
class _OtlpApp:
    pool: StoragePool
    authorize: Authorize | None
    max_body_bytes: int

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        encoding = _CONTENT_TYPES.get(_media_type(environ), "json")
        status, headers = HTTPStatus.OK, []
        try:
            body = self._receive(environ).to_otlp(encoding)
        except HttpFailure as failure:
            status, headers = failure.status, failure.headers
            _log(environ, failure)
            body = rpc_status(encoding, failure.code, str(failure), failure.violation)
        headers = [
            ("Content-Type", _NAMES_OF_TYPES[encoding]),
            ("Content-Length", str(len(body))),
            *headers,
        ]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _receive(self, environ: WSGIEnvironment) -> otlp.IngestResult:
        self._check_authorized(environ)
        ingest = _ingest_of(environ)
        encoding = _encoding_of(environ)
        body = self._body(environ)
        try:
            _check_encoding(body, encoding)
            result = ingest(self.pool, body)
        except Exception as error:
            raise failure_of(error) from error
        _log_rejected(result)
        return result

    def _check_authorized(self, environ: WSGIEnvironment) -> None:
        if self.authorize is None:
            return
        try:
            allowed = self.authorize(environ)
        except PermissionError as error:
            message = str(error) or "the request is not allowed"
            raise HttpFailure(HTTPStatus.FORBIDDEN, RpcCode.PERMISSION_DENIED, message) from error
        except Exception as error:
            raise failure_of(error) from error
        if not allowed:
            raise HttpFailure(
                HTTPStatus.UNAUTHORIZED,
                RpcCode.UNAUTHENTICATED,
                "the request has no valid credentials",
                [("WWW-Authenticate", "Bearer")],
            )

    def _body(self, environ: WSGIEnvironment) -> bytes:
        # What else reading raises is of the server, which handles it: the client has gone away.
        try:
            codings = codings_of(environ.get("HTTP_CONTENT_ENCODING", ""))
            return read_request_body(environ, codings, self.max_body_bytes)
        except (ConfigError, UnknownCoding) as error:
            raise HttpFailure(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                RpcCode.UNIMPLEMENTED,
                str(error),
                [("Accept-Encoding", ", ".join(available_codings()))],
            ) from error
        except ValidationError as error:
            raise failure_of(error) from error


def _ingest_of(environ: WSGIEnvironment) -> _Ingest:
    path = environ.get("PATH_INFO", "")
    ingest = _PATHS.get(path)
    if ingest is None:
        message = f"there is no {path or '/'}: OTLP is received at {', '.join(_PATHS)}"
        raise HttpFailure(HTTPStatus.NOT_FOUND, RpcCode.NOT_FOUND, message)
    if environ["REQUEST_METHOD"] != "POST":
        raise HttpFailure(
            HTTPStatus.METHOD_NOT_ALLOWED,
            RpcCode.UNIMPLEMENTED,
            "OTLP is sent by POST",
            [("Allow", "POST")],
        )
    return ingest


def _media_type(environ: WSGIEnvironment) -> str:
    given: str = environ.get("CONTENT_TYPE") or ""
    return given.partition(";")[0].strip().lower()


def _encoding_of(environ: WSGIEnvironment) -> Encoding:
    encoding = _CONTENT_TYPES.get(_media_type(environ))
    charset = _CHARSET.search(environ.get("CONTENT_TYPE") or "")
    if encoding is None:
        message = f"the Content-Type must be {' or '.join(_CONTENT_TYPES)}"
    elif charset and charset[1].lower() not in _UTF8:
        message = f"the charset must be utf-8, not {charset[1]}"
    else:
        return encoding
    raise HttpFailure(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, RpcCode.INVALID_ARGUMENT, message)


def _check_encoding(body: bytes, encoding: Encoding) -> None:
    """Make sure that the body is what its headers say."""
    if detect_coding(body):
        # It would be decompressed to another bound than that of the application.
        raise ValidationError("payload", body[:20], "is compressed: it needs a Content-Encoding")
    is_json = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    if encoding == "json" and not is_json:
        raise ValidationError("payload", body[:80], "must be JSON, as the Content-Type says")
    # Protobuf may begin with a line feed and "{", but not with "{".
    if encoding == "protobuf" and body.startswith(b"{"):
        raise ValidationError("payload", body[:80], "must be protobuf, as the Content-Type says")


def _log(environ: WSGIEnvironment, failure: HttpFailure) -> None:
    status = failure.status
    message = "answered %d to %s %r: %s"
    details = (status, environ["REQUEST_METHOD"], environ.get("PATH_INFO"), failure.detail)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        unexpected = status == HTTPStatus.INTERNAL_SERVER_ERROR
        logger.error(message, *details, exc_info=failure.__cause__ if unexpected else None)
    elif failure.loses_data:
        logger.warning(message, *details)
    else:
        logger.info(message, *details)


def _log_rejected(result: otlp.IngestResult) -> None:
    if result.rejected:
        # Many exporters do not log what the response says.
        logger.warning(
            "rejected %d of %d items of a request of %s; the first: %s",
            len(result.rejected),
            result.accepted + len(result.rejected),
            result.signal,
            result.rejected[0].error,
        )
