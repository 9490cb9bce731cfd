"""Health over HTTP: what each path answers, and that it keeps to WSGI and HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from observatory_storage import PrometheusHook, StoragePool, create_app
from observatory_storage.config import PoolConfig, PostgresConfig, RedisConfig, StorageConfig
from tests.observing.metrics_text import samples, value
from tests.web.wsgi_client import Answer, post
from tests.writers.helpers import ONCE


def get(app: Any, path: str, method: str = "GET", **variables: Any) -> Answer:
    return post(app, path, method=method, **variables)


def content(answer: Answer) -> Any:
    assert answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.body)


@pytest.fixture
def without_server() -> Any:
    config = StorageConfig(
        postgres=PostgresConfig.from_url("postgresql://shop:hunter2secret@127.0.0.1:1/none"),
        retry=ONCE,
    )
    with StoragePool(config, connect=False) as pool:
        yield create_app(pool, details=True)


def test_a_healthy_store_is_told_as_the_report_says(pool: StoragePool) -> None:
    answer = get(create_app(pool, details=True), "/health")
    report = content(answer)
    assert answer.code == 200
    assert (report["status"], report["postgres"]["ok"], report["redis"]) == ("healthy", True, None)


def test_a_degraded_store_is_still_fine(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr("redis://:redis2secret@127.0.0.1:1/0")),
    )
    with StoragePool(config) as pool:
        answer = get(create_app(pool), "/health")
    assert (answer.code, content(answer)["status"]) == (200, "degraded")
    assert b"redis2secret" not in answer.body


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_a_server_that_is_away_makes_the_store_unhealthy(without_server: Any, path: str) -> None:
    answer = get(without_server, path)
    assert answer.code == 503
    assert b"refused" in answer.body
    assert b"hunter2secret" not in answer.body
    assert b"Traceback" not in answer.body


def test_without_details_the_log_has_the_errors(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(empty_database_url),
        redis=RedisConfig(url=SecretStr("redis://127.0.0.1:1/0")),
    )
    with StoragePool(config) as pool:
        app = create_app(pool)
        assert content(get(app, "/health")) == {"status": "degraded"}
        assert "Redis failed its health check: " in caplog.text
        assert content(get(app, "/health/ready")) == {"ready": False}
        assert "the store failed its health check: schema 'public' is at no rev" in caplog.text
    away = StorageConfig(
        postgres=PostgresConfig.from_url("postgresql://ada@127.0.0.1:1/none"), retry=ONCE
    )
    with StoragePool(away, connect=False) as pool:
        answer = get(create_app(pool), "/health")
    assert (answer.code, content(answer)) == (503, {"status": "unhealthy"})
    assert "PostgreSQL failed its health check: " in caplog.text


def test_a_process_is_alive_without_its_servers(without_server: Any) -> None:
    answer = get(without_server, "/health/live")
    assert (answer.code, content(answer)) == (200, {"alive": True})


def test_a_migrated_store_is_ready(pool: StoragePool) -> None:
    answer = get(create_app(pool, details=True), "/health/ready")
    ready = content(answer)
    assert (answer.code, ready["ready"], ready["error"]) == (200, True, None)
    assert ready["revision"]


def set_revision(pool: StoragePool, revision: str) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE observatory_version SET version_num = '{revision}'")


def test_a_store_with_pending_migrations_is_not_ready(pool: StoragePool) -> None:
    set_revision(pool, "0001")
    answer = get(create_app(pool, details=True), "/health/ready")
    assert (answer.code, content(answer)["ready"]) == (503, False)
    assert "is at 0001" in content(answer)["error"]


def test_a_store_that_was_never_migrated_is_not_ready(empty_database_url: str) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(empty_database_url))
    with StoragePool(config) as pool:
        answer = get(create_app(pool, details=True), "/health/ready")
    assert answer.code == 503
    assert "no revision" in content(answer)["error"]


def test_a_store_that_a_newer_release_has_migrated_is_ready(pool: StoragePool) -> None:
    set_revision(pool, "9999")
    answer = get(create_app(pool, details=True), "/health/ready")
    assert (answer.code, content(answer)["revision"]) == (200, "9999")


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_an_answer_comes_while_all_connections_are_in_use(database_url: str, path: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, acquire_timeout_secs=600),
    )
    with StoragePool(config) as pool, pool.engine.connect():
        began = time.monotonic()
        answer = get(create_app(pool, timeout_secs=0.2), path)
        assert time.monotonic() - began < 300
    assert answer.code == 503


def test_metrics_are_those_of_the_hook(pool: StoragePool) -> None:
    pool.add_hook(PrometheusHook(CollectorRegistry()))
    app = create_app(pool)
    answer = get(app, "/metrics")
    assert answer.code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert value(samples(answer.body), "storage_pool_connections", state="active") == 0
    openmetrics = get(app, "/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")


def test_without_a_hook_there_are_no_metrics(pool: StoragePool) -> None:
    answer = get(create_app(pool), "/metrics")
    assert answer.code == 404
    assert b"no PrometheusHook" in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(without_server: Any, method: str) -> None:
    answer = get(without_server, "/health/live", method)
    assert (answer.code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["", "/", "/health/", "/health/none", "/storage/health"])
def test_other_paths_are_not_found(without_server: Any, path: str) -> None:
    answer = get(without_server, path)
    assert answer.code == 404
    assert b"/health/ready" in answer.body


def test_a_failure_tells_nothing_of_its_cause(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def on_operation(self, _: object, /) -> None: ...
        def exposition(self, _: str) -> tuple[bytes, str]:
            raise RuntimeError("secret of the registry")

    pool.add_hook(Broken())
    answer = get(create_app(pool), "/metrics")
    assert answer.code == 500
    assert b"secret" not in answer.body
    assert "secret of the registry" in caplog.text


@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/none"])
def test_head_answers_the_headers_of_get(without_server: Any, path: str) -> None:
    got, head = get(without_server, path), get(without_server, path, "HEAD")
    assert (head.status, head.headers) == (got.status, got.headers)
    assert head.body == b"" != got.body
