"""A WSGI application as a view of Django, also under ASGI."""

from __future__ import annotations

import io
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from django.http import HttpRequest, HttpResponse

__all__ = ["respond"]


def respond(request: HttpRequest, app: WSGIApplication, path: str) -> HttpResponse:
    """What the application answers to the request.

    Args:
        request: the request. Its body is read by the application.
        app: the application.
        path: the path that the application sees.
    """
    response = HttpResponse()

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        response.status_code = int(status.partition(" ")[0])
        for name, value in headers:
            response[name] = value
        return response.write

    for part in app(_environ(request, path), start_response):
        response.write(part)
    return response


def _environ(request: HttpRequest, path: str) -> WSGIEnvironment:
    # Under WSGI these are the server's own, with its body. Under ASGI they have the same headers,
    # and Django has received the whole body.
    environ: WSGIEnvironment = {**request.META, "PATH_INFO": path}
    environ["SCRIPT_NAME"] = request.path.removesuffix(path)
    if hasattr(request, "_body"):  # a middleware has read it
        environ["wsgi.input"] = io.BytesIO(request.body)
        environ["CONTENT_LENGTH"] = str(len(request.body))
    elif "wsgi.input" not in environ:
        environ["wsgi.input"] = request
        environ["wsgi.input_terminated"] = True
    return environ
