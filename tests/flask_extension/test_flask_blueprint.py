"""The blueprint answers health checks and receives OTLP, below any prefix."""

from __future__ import annotations

import gzip
from typing import Any
from wsgiref.types import WSGIEnvironment

import pytest
from flask import Blueprint, Flask, request
from prometheus_client import CollectorRegistry

from observatory_storage import ConfigError, PrometheusHook, ValidationError, bearer_token
from observatory_storage.flask import Observatory
from tests.commands import ACCEPTED, logs_request, metrics_request, rows, traces_request
from tests.flask_extension.conftest import MakeApp
from tests.otlp.otlp import as_message
from tests.web.wsgi_client import PROTOBUF

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}
TOKEN = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("prefix", [None, "/storage", "/a/b"])
def test_health(app: Flask, observatory: Observatory, prefix: str | None) -> None:
    app.register_blueprint(observatory.blueprint(), url_prefix=prefix)
    client, at = app.test_client(), prefix or ""
    health = client.get(f"{at}/health")
    assert (health.status_code, health.json["status"]) == (200, "healthy")  # type: ignore[index]
    assert health.headers["Cache-Control"] == "no-store"
    assert client.get(f"{at}/health/live").json == {"alive": True}
    assert client.get(f"{at}/health/ready").json["ready"] is True  # type: ignore[index]
    head = client.head(f"{at}/health/ready")
    assert (head.status_code, head.data) == (200, b"")
    assert client.post(f"{at}/health").status_code == 405
    assert client.get(f"{at}/metrics").status_code == 404
    assert client.get(f"{at}/v1/traces").status_code == 404


def test_nested_blueprints(app: Flask, observatory: Observatory) -> None:
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    admin.register_blueprint(observatory.blueprint(), url_prefix="/storage")
    app.register_blueprint(admin, url_prefix="/site")
    assert app.test_client().get("/site/storage/health/live").status_code == 200


def test_database_that_is_away(make_app: MakeApp, observatory: Observatory) -> None:
    app = make_app(
        OBSERVATORY_DATABASE_URL="postgresql://app@127.0.0.1:1/shop",
        OBSERVATORY_DB_RETRY_MAX_ATTEMPTS=1,
    )
    app.register_blueprint(observatory.blueprint())
    client = app.test_client()
    health, ready = client.get("/health"), client.get("/health/ready")
    assert (health.status_code, health.json) == (503, {"status": "unhealthy"})
    assert (ready.status_code, ready.json) == (503, {"ready": False})
    assert client.get("/health/live").status_code == 200


def test_those_who_are_authorized_see_why(make_app: MakeApp, observatory: Observatory) -> None:
    app = make_app(
        OBSERVATORY_DATABASE_URL="postgresql://app@127.0.0.1:1/shop",
        OBSERVATORY_DB_RETRY_MAX_ATTEMPTS=1,
    )
    app.register_blueprint(observatory.blueprint(authorize=bearer_token("secret")))
    client = app.test_client()
    assert client.get("/health").status_code == 401
    for path in ("/health", "/health/ready"):
        assert "127.0.0.1" in client.get(path, headers=TOKEN).text


def test_metrics(database_url: str) -> None:
    app = Flask("shop")
    app.config["OBSERVATORY_DATABASE_URL"] = database_url
    observatory = Observatory(app, hooks=[PrometheusHook(CollectorRegistry())])
    app.register_blueprint(observatory.blueprint())
    client = app.test_client()
    assert client.get("/health").status_code == 200
    assert "storage_pool_connections" in client.get("/metrics").text
    with app.app_context():
        observatory.close()


@pytest.mark.parametrize("prefix", [None, "/otlp"])
def test_otlp_is_stored(
    app: Flask, observatory: Observatory, database_url: str, prefix: str | None
) -> None:
    receiver = observatory.blueprint(health=False, otlp=True, authorize=bearer_token("secret"))
    app.register_blueprint(receiver, url_prefix=prefix)
    client = app.test_client()
    for signal, body in REQUESTS.items():
        path = f"{prefix or ''}/v1/{signal}"
        assert client.post(path, json=body).status_code == 401
        answer = client.post(path, json=body, headers=TOKEN)
        assert (answer.status_code, answer.json) == (200, {})
        protobuf = gzip.compress(as_message(signal, body).SerializeToString())
        headers = {**TOKEN, "Content-Encoding": "gzip", "Content-Type": PROTOBUF}
        answer = client.post(path, data=protobuf, headers=headers)
        assert (answer.status_code, answer.content_type) == (200, PROTOBUF)
    assert rows(database_url) == ACCEPTED
    assert client.get(f"{prefix or ''}/health").status_code == 404
    assert client.get(f"{prefix or ''}/v1/traces", headers=TOKEN).status_code == 405


def test_bodies_have_the_bound_of_the_blueprint(app: Flask, observatory: Observatory) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10  # of the pages of the application
    app.register_blueprint(
        observatory.blueprint(otlp=True, authorize=lambda _: True, max_body_bytes=5000)
    )
    client = app.test_client()
    assert client.post("/v1/logs", json=REQUESTS["logs"]).status_code == 200
    assert client.post("/v1/logs", json={"x": "x" * 5000}).status_code == 413


def test_authorize_guards_all_paths_and_sees_the_request(
    app: Flask, observatory: Observatory
) -> None:
    def authorize(environ: WSGIEnvironment) -> bool:
        assert environ["REQUEST_METHOD"] == request.method
        if request.args.get("who") == "nobody":
            raise PermissionError("only the platform may ask")
        return request.args.get("who") == "platform"

    app.register_blueprint(observatory.blueprint(otlp=True, authorize=authorize))
    client = app.test_client()
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        forbidden = client.get(f"{path}?who=nobody")
        assert (forbidden.status_code, forbidden.text) == (403, "only the platform may ask\n")
    assert client.get("/health?who=platform").status_code == 200
    assert client.post("/v1/logs?who=nobody", json={}).status_code == 403
    assert client.post("/v1/logs?who=platform", json={}).status_code == 200


def test_two_blueprints_of_one_application(app: Flask, observatory: Observatory) -> None:
    app.register_blueprint(observatory.blueprint(), url_prefix="/storage")
    receiver = observatory.blueprint(
        health=False, otlp=True, authorize=bearer_token("secret"), name="otlp"
    )
    app.register_blueprint(receiver, url_prefix="/otlp")
    client = app.test_client()
    assert client.get("/storage/health").status_code == 200
    assert client.post("/otlp/v1/logs", json={}).status_code == 401


def test_one_blueprint_in_two_applications(
    make_app: MakeApp, observatory: Observatory, database_url: str
) -> None:
    blueprint = observatory.blueprint(otlp=True, authorize=lambda _: True)
    one = make_app()
    other = make_app(OBSERVATORY_DATABASE_URL="postgresql://app@127.0.0.1:1/shop")
    other.config["OBSERVATORY_DB_RETRY_MAX_ATTEMPTS"] = 1
    for app in (one, other):
        app.register_blueprint(blueprint)
    assert one.test_client().post("/v1/logs", json=REQUESTS["logs"]).status_code == 200
    assert other.test_client().post("/v1/logs", json=REQUESTS["logs"]).status_code == 503
    assert rows(database_url)["logs"] == ACCEPTED["logs"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"otlp": True}, ConfigError, "authorize: must say who may send OTLP"),
        ({"health": False}, ConfigError, "health and otlp: one of them must be True"),
        ({"max_body_bytes": 0}, ValidationError, "max_body_bytes=0: must be a positive number"),
    ],
)
def test_arguments_of_a_blueprint(
    observatory: Observatory, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        observatory.blueprint(**arguments)


def test_health_answers_in_time_while_connections_are_in_use(
    make_app: MakeApp, observatory: Observatory
) -> None:
    app = make_app(OBSERVATORY_DB_POOL_MAX_CONNECTIONS=1, OBSERVATORY_DB_POOL_ACQUIRE_TIMEOUT=3600)
    app.register_blueprint(observatory.blueprint())
    with app.app_context():
        observatory.uow.traces.list()  # holds the only connection
        assert app.test_client().get("/health").status_code == 503
