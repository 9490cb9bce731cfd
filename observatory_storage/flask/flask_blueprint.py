"""The blueprint: the WSGI applications of the store as views of Flask."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from wsgiref.types import WSGIApplication

from flask import Blueprint, current_app, request
from werkzeug.wrappers import Response

from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.flask.request_recording import not_recorded
from observatory_storage.health import create_app
from observatory_storage.health_app import PATHS
from observatory_storage.pool import StoragePool
from observatory_storage.web import Authorize, otlp_app

__all__ = ["blueprint_of"]

_OTLP_PATHS: Final = ("/v1/traces", "/v1/metrics", "/v1/logs")
_TEXT: Final = "text/plain"


def blueprint_of(
    pool: Callable[[], StoragePool],
    *,
    health: bool,
    otlp: bool,
    authorize: Authorize | None,
    max_body_bytes: int,
    name: str,
) -> Blueprint:
    """The blueprint that `Observatory.blueprint` describes.

    Args:
        pool: returns the pool of the current application.
    """
    if otlp and authorize is None:
        raise ConfigError(
            "authorize: must say who may send OTLP: bearer_token(…), or lambda environ: True"
        )
    if not (health or otlp):
        raise ConfigError("health and otlp: one of them must be True")
    if isinstance(max_body_bytes, bool) or max_body_bytes < 1:
        raise ValidationError("max_body_bytes", max_body_bytes, "must be a positive number")
    blueprint = Blueprint(name, __name__)

    def add(path: str, method: str, app: Callable[[], WSGIApplication]) -> None:
        endpoint = path.removeprefix("/").replace("/", "_")
        blueprint.add_url_rule(path, endpoint, _view(path, app), methods=[method])

    for path in PATHS if health else ():
        add(path, "GET", lambda: _guarded(pool(), authorize))
    for path in _OTLP_PATHS if otlp else ():
        add(
            path,
            "POST",
            lambda: otlp_app(pool(), authorize=authorize, max_body_bytes=max_body_bytes),
        )
    return blueprint


def _view(path: str, app: Callable[[], WSGIApplication]) -> Callable[[], Response]:
    def view() -> Response:
        # The application sees the paths below its own prefix. It reads the body by itself.
        environ = dict(request.environ)
        prefix = environ["PATH_INFO"].removesuffix(path)
        environ |= {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix, "PATH_INFO": path}
        return current_app.response_class.from_app(app(), environ, buffered=True)

    return not_recorded(view)  # probes come every few seconds


def _guarded(pool: StoragePool, authorize: Authorize | None) -> WSGIApplication:
    """The health of the pool, with details for requests that were authorized.

    Requests that are not authorized get a refusal. Without `authorize`, all get short answers.
    """
    if authorize is None:
        return create_app(pool)
    try:
        if authorize(request.environ):
            return create_app(pool, details=True)
    except PermissionError as error:
        message = str(error) or "the request is not allowed"
        return Response(f"{message}\n", HTTPStatus.FORBIDDEN, mimetype=_TEXT)
    return Response(
        "the request has no valid credentials\n",
        HTTPStatus.UNAUTHORIZED,
        {"WWW-Authenticate": "Bearer"},
        mimetype=_TEXT,
    )
