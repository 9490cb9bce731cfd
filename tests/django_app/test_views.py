"""`urls`: health, metrics, OTLP and a trace, and who may ask for them."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient, Client, override_settings

from observatory_storage import StoragePool
from observatory_storage.django import get_pool
from tests.commands import TRACE, rows, traces_request
from tests.django_app.conftest import project_on
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


@pytest.mark.usefixtures("whole_project")
def test_a_trace_needs_the_permissions_of_the_admin() -> None:
    write_conversation(get_pool())
    client, ada = Client(), User.objects.create_user("ada", is_staff=True)
    client.force_login(ada)
    path = f"/store/traces/{TRACE}"
    assert client.get(path).status_code == 403
    names = ["view_trace", "view_span"]
    ada.user_permissions.set(Permission.objects.filter(codename__in=names))
    assert client.get(path).status_code == 200
    ada.is_staff = False
    ada.save()
    assert client.get(path).status_code == 403
    with override_settings(OBSERVATORY_PERMISSION=only_ada):
        assert client.get(path).status_code == 403
        assert client.get(path, headers={"X-User": "ada"}).status_code == 200


@pytest.mark.usefixtures("project")
def test_metrics_have_the_permission_of_health_checks() -> None:
    assert Client().get("/store/metrics").status_code == 403
    with open_to_all:
        assert Client().get("/store/metrics").status_code == 403
    with override_settings(OBSERVATORY_HEALTH_PERMISSION=only_ada):
        assert Client().get("/store/metrics").status_code == 403
        answer = Client().get("/store/metrics", headers={"X-User": "ada"})
        assert b"no metrics" in answer.content  # the pool has no hook
        assert Client().get(f"/store/traces/{TRACE}", headers={"X-User": "ada"}).status_code == 403


@pytest.mark.usefixtures("new_project")
def test_probes_need_no_permission_and_see_no_details(caplog: pytest.LogCaptureFixture) -> None:
    ready = Client().get("/store/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})
    assert "no revision" in caplog.text
    assert Client().get("/store/health").json() == {"status": "healthy"}
    with override_settings(OBSERVATORY_HEALTH_PERMISSION=only_ada):
        assert Client().get("/store/health/ready").json() == {"ready": False}
        shown = Client().get("/store/health/ready", headers={"X-User": "ada"}).json()
    assert "no revision" in shown["error"]


def test_a_probe_with_a_cookie_is_told_that_the_database_is_away() -> None:
    with project_on("postgresql://app@127.0.0.1:1/shop"):
        client = Client()
        client.cookies["sessionid"] = "a" * 32
        answer = client.get("/store/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})


@pytest.mark.usefixtures("project")
def test_anybody_may_ask_whether_the_process_lives() -> None:
    answer = Client().get("/store/health/live")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})
    assert Client().post("/store/health/live").status_code == 405


def test_health_is_that_of_the_project_s_pool(project: StoragePool) -> None:
    answer = Client().get("/store/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy"})
    assert Client().get("/store/health/ready").json() == {"ready": True}
    assert answer.headers["Cache-Control"] == "no-store"
    with override_settings(OBSERVATORY_SCHEMA="elsewhere"):
        assert Client().get("/store/health/ready").status_code == 503
    assert project.schema == "public"


@override_settings(OBSERVATORY_HEALTH_PERMISSION=anybody)
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
def test_without_tokens_otlp_is_refused_unless_a_permission_admits_it() -> None:
    body = json.dumps(traces_request()).encode()
    with open_to_all:
        refused = Client().post("/store/v1/traces", body, JSON)
    assert refused.status_code == 403
    assert "OBSERVATORY_OTLP_TOKENS is not set" in refused.json()["message"]
    with override_settings(OBSERVATORY_OTLP_PERMISSION=only_ada):
        assert Client().post("/store/v1/traces", body, JSON).status_code == 401
        answer = Client().post("/store/v1/traces", body, JSON, headers={"X-User": "ada"})
        assert answer.status_code == 200


def test_the_project_includes_the_urls() -> None:
    from django.urls import resolve, reverse

    assert SETTINGS["ROOT_URLCONF"] == "tests.django_app.project"
    assert reverse("observatory_storage:trace", args=[TRACE]) == f"/store/traces/{TRACE}"
    assert reverse("observatory_storage:otlp", args=["logs"]) == "/store/v1/logs"
    # Instrumentations name the spans of requests by it.
    assert resolve("/store/v1/logs").route == "store/v1/<str:signal>"
