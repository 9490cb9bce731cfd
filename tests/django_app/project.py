"""The URLs and views of the Django project of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path

from observatory_storage.django import get_trace_writer
from observatory_storage.django.request_store import RequestStore
from observatory_storage.recording import observe_llm

stores: list[RequestStore] = []


def _store(request: HttpRequest) -> RequestStore:
    store: RequestStore = request.observatory
    stores.append(store)
    return store


def read(request: HttpRequest, name: str) -> HttpResponse:
    """How many traces are stored, by the request's unit of work."""
    store = _store(request)
    count = len(store.uow.traces.list())
    return JsonResponse({"name": name, "traces": count, "trace_id": store.trace_id})


def fail(request: HttpRequest) -> HttpResponse:
    _store(request).uow.traces.list()
    raise LookupError("no such answer")


def deny(_: HttpRequest, error: str) -> HttpResponse:
    raise {"missing": Http404, "denied": PermissionDenied, "bad": BadRequest}[error](error)


def refuse(_: HttpRequest) -> HttpResponse:
    return HttpResponse(status=404)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    store = _store(request)

    def parts() -> Iterator[str]:
        yield str(len(store.uow.traces.list()))
        yield ", " + ("open" if store.is_open else "closed")

    return StreamingHttpResponse(parts())


async def read_async(request: HttpRequest) -> JsonResponse:
    store = _store(request)
    count = await sync_to_async(lambda: len(store.uow.traces.list()))()
    return JsonResponse({"traces": count, "open": store.is_open})


async def block(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"traces": len(_store(request).uow.traces.list())})


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    store = _store(request)

    async def parts() -> AsyncIterator[str]:
        yield str(store.trace_id)

    return StreamingHttpResponse(parts())


def call(_: HttpRequest) -> HttpResponse:
    with observe_llm(get_trace_writer, model="large", prompt="why") as observed:
        observed.update(completion="because")
    return HttpResponse("because")


async def call_async(request: HttpRequest) -> HttpResponse:
    return call(request)


urlpatterns = [
    path("call", call),
    path("async/call", call_async),
    path("read/<str:name>", read),
    path("fail", fail),
    path("deny/<str:error>", deny),
    path("refuse", refuse),
    path("stream", stream),
    path("async/read", read_async),
    path("async/block", block),
    path("async/stream", stream_async),
    path("admin/", admin.site.urls),
    path("store/", include("observatory_storage.django.urls")),
]
