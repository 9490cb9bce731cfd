"""`urls`: health, metrics, OTLP and a trace, and who may ask for them."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from django.test import AsyncClient, Client, override_settings

from observatory_storage import StoragePool
from tests.commands import TRACE, rows, traces_request
from tests.django_app.project_settings import SETTINGS
from tests.django_app.rows import write_conversation

TOKEN = "a-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = "application/json"
open_to_all = override_settings(OBSERVATORY_PERMISSION="tests.django_app.test_views.anybody")


def anybody(_: object) -> bool:
    return True


def only_ada(request: Any) -> bool:
    return bool(request.headers.get("X-User") == "ada")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("path", ["health", "health/ready", "metrics", f"traces/{TRACE}"])
def test_pages_are_for_the_staff_unless_the_project_says_otherwise(path: str) -> None:
    assert Client().get(f"/store/{path}").status_code == 403
    with override_settings(OBSERVATORY_PERMISSION=only_ada):
        assert Client().get(f"/store/{path}").status_code == 403
        refused = Client().get(f"/store/{path}", headers={"X-User": "ada"})
        assert refused.status_code in (200, 404)


@pytest.mark.usefixtures("project")
def test_anybody_may_ask_whether_the_process_lives() -> None:
    answer = Client().get("/store/health/live")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})
    assert Client().post("/store/health/live").status_code == 405


@open_to_all
def test_health_is_that_of_the_project_s_pool(project: StoragePool) -> None:
    answer = Client().get("/store/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert Client().get("/store/health/ready").json()["ready"] is True
    assert answer.headers["Cache-Control"] == "no-store"
    with override_settings(OBSERVATORY_SCHEMA="elsewhere"):
        assert Client().get("/store/health/ready").status_code == 503
    assert project.schema == "public"


@open_to_all
def test_metrics_are_those_of_a_hook_of_the_pool(project: StoragePool) -> None:
    from prometheus_client import CollectorRegistry

    from observatory_storage import PrometheusHook

    assert Client().get("/store/metrics").status_code == 404
    project.add_hook(PrometheusHook(registry=CollectorRegistry()))
    assert b"storage_write_duration_seconds" in Client().get("/store/metrics").content


@open_to_all
def test_a_trace_is_a_tree_in_json(project: StoragePool) -> None:
    write_conversation(project)
    nodes = Client().get(f"/store/traces/{TRACE}").json()["nodes"]
    assert [(node["depth"], node["span"]["name"]) for node in nodes] == [
        (0, "POST /answer"),
        (1, "chat large"),
    ]
    assert Client().get(f"/store/traces/{'1' * 32}").status_code == 404


@override_settings(OBSERVATORY_OTLP_TOKENS=[TOKEN, "another"])
def test_otlp_is_received_with_a_token_and_without_a_cookie(
    project: StoragePool, database_url: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    body = json.dumps(traces_request()).encode()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = client.post("/store/v1/traces", body, JSON, headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.get("/store/v1/traces", headers=BEARER).status_code == 405
    assert rows(database_url)["spans"] == 0
    zipped = {**BEARER, "Content-Encoding": "gzip"}
    assert client.post("/store/v1/traces", gzip.compress(body), JSON, headers=zipped).json() == {}
    assert rows(database_url)["spans"] == 5
    assert client.post("/store/v1/nothing", body, JSON, headers=BEARER).status_code == 404
    assert client.post("/store/v1/logs", b"{", JSON, headers=BEARER).status_code == 400
    assert project.stats().active == 0


@override_settings(OBSERVATORY_OTLP_TOKENS=TOKEN, DATA_UPLOAD_MAX_MEMORY_SIZE=1)
@pytest.mark.usefixtures("project")
def test_otlp_is_received_under_asgi(database_url: str) -> None:
    body = json.dumps(traces_request()).encode()

    async def send() -> int:
        client = AsyncClient()
        answer = await client.post("/store/v1/traces", body, JSON, headers=BEARER)
        return int(answer.status_code)

    assert asyncio.run(send()) == 200
    assert rows(database_url)["spans"] == 5


@pytest.mark.usefixtures("project")
def test_otlp_is_received_after_a_middleware_has_read_the_body(database_url: str) -> None:
    reading = "tests.django_app.test_views.reading"
    with override_settings(OBSERVATORY_OTLP_TOKENS=TOKEN, MIDDLEWARE=[reading]):
        body = json.dumps(traces_request()).encode()
        assert Client().post("/store/v1/traces", body, JSON, headers=BEARER).status_code == 200
    assert rows(database_url)["spans"] == 5


def reading(get_response: Any) -> Any:
    def respond(request: Any) -> Any:
        assert request.body
        return get_response(request)

    return respond


@pytest.mark.usefixtures("project")
def test_without_a_token_who_may_read_may_send() -> None:
    body = json.dumps(traces_request()).encode()
    assert Client().post("/store/v1/traces", body, JSON).status_code == 401
    with open_to_all:
        assert Client().post("/store/v1/traces", body, JSON).status_code == 200
    with override_settings(OBSERVATORY_OTLP_PERMISSION=only_ada):
        answer = Client().post("/store/v1/traces", body, JSON, headers={"X-User": "ada"})
        assert answer.status_code == 200


def test_the_project_includes_the_urls() -> None:
    from django.urls import reverse

    assert SETTINGS["ROOT_URLCONF"] == "tests.django_app.project"
    assert reverse("observatory_storage:trace", args=[TRACE]) == f"/store/traces/{TRACE}"
    assert reverse("observatory_storage:otlp", args=["logs"]) == "/store/v1/logs"
