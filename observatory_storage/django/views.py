"""The views of `urls`: health, metrics, OTLP, and a trace as JSON."""

from __future__ import annotations

from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from observatory_storage.django.app_pool import get_pool, unit_of_work
from observatory_storage.django.app_settings import app_settings
from observatory_storage.django.mounted_app import respond
from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.health import create_app
from observatory_storage.web import bearer_token, otlp_app

__all__ = ["health", "live", "metrics", "otlp", "trace"]


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Whether the process answers. Nobody is asked who they are, which may need the database."""
    return respond(request, create_app(get_pool()), "/health/live")


@require_safe
def health(request: HttpRequest, path: str) -> HttpResponse:
    """How the store is; see `create_app`. ``OBSERVATORY_HEALTH_PERMISSION`` admits to details."""
    details = _may_see_details(request)
    return respond(request, create_app(get_pool(), details=details), path)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics of the store, for requests that ``OBSERVATORY_HEALTH_PERMISSION`` admits."""
    if not app_settings().health_permission(request):
        raise PermissionDenied
    return respond(request, create_app(get_pool()), "/metrics")


@require_safe
@never_cache
def trace(request: HttpRequest, trace_id: str) -> HttpResponse:
    """A trace with its spans as a tree, as JSON, if ``OBSERVATORY_PERMISSION`` admits to it."""
    if not app_settings().permission(request):
        raise PermissionDenied
    try:
        with unit_of_work() as uow:
            tree = uow.traces.get_tree(trace_id).to_dict(json=True)
    except (NotFound, ValidationError) as error:
        raise Http404(str(error)) from error
    return JsonResponse(tree)


@csrf_exempt
def otlp(request: HttpRequest, signal: str) -> HttpResponse:
    """Receives OTLP; see `otlp_app`. Senders have a token, not a cookie."""
    return respond(
        request, otlp_app(get_pool(), authorize=_authorize_for(request)), f"/v1/{signal}"
    )


def _may_see_details(request: HttpRequest) -> bool:
    try:
        return bool(app_settings().health_permission(request))
    except (DatabaseError, InterfaceError):  # which has the session of a user
        return False


def _authorize_for(request: HttpRequest) -> Callable[[WSGIEnvironment], bool]:
    own = app_settings()
    has_token = bearer_token(*own.otlp_tokens) if own.otlp_tokens else None
    permission = own.otlp_permission

    def authorize(environ: WSGIEnvironment) -> bool:
        if has_token is None and permission is None:
            raise PermissionError("OTLP is not received here: OBSERVATORY_OTLP_TOKENS is not set")
        if has_token is not None and has_token(environ):
            return True
        return permission is not None and bool(permission(request))

    return authorize
