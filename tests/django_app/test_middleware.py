"""Requests have the store and a unit of work, and are recorded if the project says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import SynchronousOnlyOperation
from django.test import AsyncClient, Client, override_settings

from observatory_embedded import EmbeddedPostgres
from observatory_storage import ConnectionLost, ReadOnly, StoragePool, TraceSpan
from observatory_storage.django import get_pool
from observatory_storage.django.app_pool import flush_writers, unit_of_work
from observatory_storage.django.request_store import RequestStore
from observatory_storage.recording.shared_writer import losses
from tests.django_app import project as of_project
from tests.django_app.conftest import project_on
from tests.django_app.rows import TRACE, write_conversation

PARENT = "00f067aa0ba902b7"
recorded = override_settings(OBSERVATORY_RECORD_REQUESTS=True, OBSERVATORY_SERVICE_NAME="shop")


@pytest.fixture(autouse=True)
def _stores() -> Iterator[None]:
    of_project.stores.clear()
    yield
    assert not any(store.is_open for store in of_project.stores)


def spans(pool: StoragePool) -> list[TraceSpan]:
    flush_writers()
    with pool.unit_of_work() as uow:
        found = uow.traces.iterate_spans(payload=True)
        return sorted(found, key=lambda span: span.name)


def test_a_request_has_one_unit_of_work(project: StoragePool) -> None:
    write_conversation(project)
    answer = Client().get("/read/x").json()
    assert answer["traces"] == 1
    assert answer["trace_id"] is None
    assert project.stats().active == 0


@pytest.mark.usefixtures("project")
def test_requests_are_not_recorded_unless_the_project_says_so() -> None:
    Client().get("/read/x")
    assert spans(get_pool()) == []


@pytest.mark.usefixtures("project")
@recorded
def test_a_request_is_recorded_as_a_server_span() -> None:
    answer = Client(headers={"user-agent": "tests"}).get("/read/x").json()
    (span,) = spans(get_pool())
    assert span.trace_id.hex == answer["trace_id"]
    assert (span.name, span.kind, span.status) == ("GET /read/<str:name>", "server", "unset")
    assert (span.service_name, span.parent_span_id) == ("shop", None)
    assert span.duration_us is not None
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/read/<str:name>",
        "http.response.status_code": 200,
        "url.path": "/read/x",
        "url.scheme": "http",
        "user_agent.original": "tests",
    }


@pytest.mark.usefixtures("project")
@recorded
def test_a_request_continues_the_trace_of_its_header() -> None:
    client = Client()
    client.get("/read/x", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    for damaged in (f"00-{TRACE}-{PARENT}", f"00-{'0' * 32}-{PARENT}-01", "ff-1-2-3", "é"):
        client.get("/refuse", headers={"traceparent": damaged})
    found = {(span.trace_id.hex, span.parent_span_id) for span in spans(get_pool())}
    assert (TRACE, PARENT) in found
    assert len(found) == 5
    assert [parent for trace, parent in found if trace != TRACE] == [None] * 4


@pytest.mark.usefixtures("project")
@recorded
def test_a_failed_request_has_the_error_of_its_view() -> None:
    client = Client(raise_request_exception=False)
    assert client.get("/fail").status_code == 500
    client.get("/refuse")
    client.get("/nowhere")
    nowhere, failed, refused = spans(get_pool())
    assert (nowhere.name, nowhere.status) == ("GET", "unset")
    assert nowhere.attributes["http.response.status_code"] == 404
    assert (refused.name, refused.status, refused.error_type) == ("GET /refuse", "unset", None)
    assert (failed.name, failed.status) == ("GET /fail", "error")
    assert failed.error_type == "LookupError"
    assert failed.status_message == "no such answer"


@pytest.mark.usefixtures("project")
@recorded
@pytest.mark.parametrize(("error", "status"), [("missing", 404), ("denied", 403), ("bad", 400)])
def test_a_request_that_a_view_refuses_has_not_failed(error: str, status: int) -> None:
    assert Client().get(f"/deny/{error}").status_code == status
    (span,) = spans(get_pool())
    assert (span.status, span.error_type, span.status_message) == ("unset", None, None)
    assert span.attributes["http.response.status_code"] == status


@pytest.mark.usefixtures("project")
@recorded
def test_requests_for_the_store_itself_are_not_recorded() -> None:
    client = Client()
    assert client.get("/store/health/live").status_code == 200
    client.get("/store/metrics")
    client.post("/store/v1/traces", b"{}", "application/json")
    client.get(f"/store/traces/{TRACE}")
    client.get("/store/nowhere")
    assert [span.attributes["url.path"] for span in spans(get_pool())] == ["/store/nowhere"]


@pytest.mark.usefixtures("project")
@recorded
def test_what_views_record_is_below_the_span_of_their_request() -> None:
    async def ask() -> None:
        await AsyncClient().get("/async/call")

    Client().get("/call")
    asyncio.run(ask())
    for response in (Client().get("/stream"), Client().get("/refuse")):
        assert response.status_code in (200, 404)  # the stream of the first one is never read
    found = spans(get_pool())
    by_id = {span.span_id: span for span in found}
    calls = [span for span in found if span.model == "large"]
    assert {by_id[str(call.parent_span_id)].name for call in calls} == {
        "GET /call",
        "GET /async/call",
    }
    assert {call.service_name for call in calls} == {"shop"}
    roots = [span for span in found if span.parent_span_id is None]
    assert len(roots) == len({span.trace_id for span in found}) == 4


def test_a_streaming_response_has_the_unit_of_work_until_its_end(project: StoragePool) -> None:
    write_conversation(project)
    response = Client().get("/stream")
    (store,) = of_project.stores
    assert not store.is_open  # nothing has been read yet
    assert b"".join(response.streaming_content) == b"1, open"
    assert not store.is_open  # the client closes the response after the last part, as servers do


def test_async_views_run_under_the_same_middleware(project: StoragePool) -> None:
    write_conversation(project)

    async def ask() -> tuple[Any, str]:
        client = AsyncClient(raise_request_exception=False)
        answer = await client.get("/async/read")
        stream = await client.get("/async/stream")
        parts = [part async for part in stream.streaming_content]
        return answer.json(), b"".join(parts).decode()

    with recorded:
        answer, trace_id = asyncio.run(ask())
        assert answer == {"traces": 1, "open": True}
        found = {span.name: span.trace_id.hex for span in spans(get_pool())}
    assert found["GET /async/stream"] == trace_id
    assert "GET /async/read" in found


@pytest.mark.usefixtures("project")
def test_the_unit_of_work_does_not_block_an_event_loop() -> None:
    with pytest.raises(SynchronousOnlyOperation, match="sync_to_async"):
        asyncio.run(AsyncClient().get("/async/block"))


def test_the_middleware_is_async_if_the_next_one_is() -> None:
    from observatory_storage.django.middleware import ObservatoryMiddleware

    async def respond_async(_: object) -> None: ...

    assert iscoroutinefunction(ObservatoryMiddleware(respond_async))
    assert not iscoroutinefunction(ObservatoryMiddleware(lambda _: None))


@recorded
def test_requests_go_on_without_the_database_and_are_stored_later(
    embedded_server: EmbeddedPostgres,
) -> None:
    with project_on(embedded_server.url):
        get_pool().run_migrations()
        embedded_server.stop()
        assert [Client().get("/refuse").status_code for _ in range(5)] == [404] * 5
        with pytest.raises(ConnectionLost):
            flush_writers()
        embedded_server.start()
        assert len(spans(get_pool())) == 5


@recorded
def test_requests_go_on_if_the_store_is_not_postgresql() -> None:
    lost = losses.lost
    with override_settings(OBSERVATORY_DATABASE_ALIAS="other"):
        assert Client().get("/refuse").status_code == 404
    assert losses.lost == lost + 1  # the log tells of them once a minute


def test_a_request_has_another_unit_of_work_that_only_reads(project: StoragePool) -> None:
    write_conversation(project)
    store = RequestStore(None)
    assert len(store.read_uow.traces.list()) == 1
    assert store.read_uow is not store.uow
    with pytest.raises(ReadOnly):
        store.read_uow.traces.delete(TRACE)
    assert len(store.uow.traces.list()) == 1
    open_before = store.is_open
    store.close()
    assert (open_before, store.is_open) == (True, False)
    assert project.stats().active == 0
    with unit_of_work(read_only=True) as uow, pytest.raises(ReadOnly):
        uow.traces.delete(TRACE)
