"""The applications of docs/observing.md, in real servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.observing.metrics_text import samples, value
from tests.web.mounting import DJANGO, FLASK, gunicorn, served, uwsgi, write_applications
from tests.writers.helpers import a_log

OWN = gunicorn("observatory_storage.health:create_app()")
SERVERS: Mapping[str, Sequence[str]] = {
    "Flask in gunicorn": gunicorn(FLASK, "-k", "gthread", "--threads", "2", "--preload"),
    "Django in uWSGI": uwsgi(DJANGO),
    "Django in cheroot": (sys.executable, "-m", "cheroot", "--bind", "127.0.0.1:{port}", DJANGO),
}


@pytest.fixture
def applications(tmp_path: Path) -> Path:
    return write_applications(tmp_path)


def asked(address: str, method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
    try:
        with urlopen(Request(address, method=method), timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.mark.parametrize("server", SERVERS)
def test_health_is_answered_where_it_is_mounted(
    server: str, applications: Path, database_url: str
) -> None:
    with served(SERVERS[server], applications, database_url, OTLP_TOKEN="unused") as address:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            status, headers, body = asked(f"{address}/storage{path}")
            assert status == 200, body
            assert int(headers["Content-Length"]) == len(body)
            assert (b"storage_pool_connections" in body) is (path == "/metrics")
        assert asked(f"{address}/storage/none")[0] == 404
        assert asked(f"{address}/storage/health/live", "POST")[0] == 405
        assert asked(f"{address}/storage/health/live", "HEAD")[::2] == (200, b"")
        assert asked(f"{address}/own")[2] == b"answered by the application"


def test_an_application_of_its_own_collects_the_metrics_of_its_workers(
    applications: Path, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path_factory.mktemp("metrics"))}
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with StoragePool(config) as pool:
        CopyWriter(pool).write_logs([a_log()])
    with served(OWN, applications, database_url, **shared) as address:
        assert json.loads(asked(f"{address}/health")[2])["status"] == "healthy"
        status, headers, body = asked(f"{address}/metrics")
    assert (status, headers["Content-Type"][:10]) == (200, "text/plain")
    found = samples(body)
    assert value(found, "storage_partitions", schema="public", table="logs") == 1
    (taken,) = (
        number
        for (name, _), number in found.items()
        if name == "storage_connection_acquire_duration_seconds_count"
    )
    assert taken >= 1
