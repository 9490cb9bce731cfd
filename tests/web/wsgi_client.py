"""Calls a WSGI application as a server does, and checks that both keep to PEP 3333."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from google.rpc.status_pb2 import Status

JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    status: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.status[:3])

    @property
    def message(self) -> str:
        """The message of the google.rpc.Status, whatever its encoding."""
        if self.headers["Content-Type"] == PROTOBUF:
            return str(Status.FromString(self.body).message)
        return str(json.loads(self.body)["message"])


def post(
    app: WSGIApplication,
    path: str = "/v1/traces",
    body: bytes | Any = b"",
    content_type: str = JSON,
    *,
    method: str = "POST",
    stream: Any = None,
    **variables: Any,
) -> Answer:
    """The answer to a request. `body` is bytes, or a value to send as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "/otlp",
        "QUERY_STRING": "",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": stream or io.BytesIO(content),
        **variables,
    }
    environ = {name: value for name, value in environ.items() if value is not None}
    setup_testing_defaults(environ)
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        del exc_info
        started.append((status, dict(headers)))
        return started.append  # PEP 3333 wants a function to write with

    result = validator(app)(environ, start_response)
    try:
        content = b"".join(result)
    finally:
        result.close()  # type: ignore[attr-defined]  # the validator's result has it
    ((status, headers),) = started
    if environ["REQUEST_METHOD"] != "HEAD":
        assert headers["Content-Length"] == str(len(content))
    return Answer(status, headers, content)


class Unreadable:
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError

    readline = readlines = __iter__ = read
