"""The applications of docs/otlp-http.md, in real servers, with OpenTelemetry's exporters."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression

from tests.commands import rows
from tests.hosts.hosting import names_stored
from tests.web.exporting import EXPORTED, export
from tests.web.mounting import DJANGO, FLASK, gunicorn, served, uwsgi, write_applications

TOKEN = "t0ken-of-the-test"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
NOTHING = dict.fromkeys(EXPORTED, 0)


@pytest.fixture
def applications(tmp_path: Path) -> Path:
    """A folder with the examples as modules."""
    return write_applications(tmp_path)


SERVERS: Mapping[str, Sequence[str]] = {
    "Flask in gunicorn": gunicorn(FLASK, "-k", "gthread", "--threads", "4", "--preload"),
    "Flask in Werkzeug": (
        *(sys.executable, "-m", "flask", "--app", "flask_application"),
        *("run", "--port", "{port}"),
    ),
    "Flask in uWSGI": uwsgi(FLASK),
    "Django in gunicorn": gunicorn(DJANGO, "-k", "sync"),
    "Django in its own server": (
        *(sys.executable, "-m", "django", "runserver", "127.0.0.1:{port}"),
        *("--noreload", "--skip-checks", "--settings", "project.settings"),
    ),
    "Django in uWSGI": uwsgi(DJANGO),
    "Django in cheroot": (sys.executable, "-m", "cheroot", "--bind", "127.0.0.1:{port}", DJANGO),
}


@pytest.mark.parametrize("server", SERVERS)
def test_exporters_send_to_the_mounted_application(
    server: str, applications: Path, database_url: str
) -> None:
    with served(SERVERS[server], applications, database_url, OTLP_TOKEN=TOKEN) as address:
        for compression in (Compression.Gzip, Compression.Deflate, Compression.NoCompression):
            export(f"{address}/otlp", compression.name, headers=AUTHORIZED, compression=compression)
        with urlopen(f"{address}/own", timeout=30) as answer:
            assert answer.read() == b"answered by the application"
        refused = Request(f"{address}/otlp/v1/traces", b"{}", {"Content-Type": "application/json"})
        with pytest.raises(HTTPError) as error:
            urlopen(refused, timeout=30)
        assert error.value.code == 401
        assert error.value.headers["WWW-Authenticate"] == "Bearer"
        error.value.close()
    assert rows(database_url) == {name: 3 * count for name, count in EXPORTED.items()}
    assert names_stored(database_url) == {
        compression.name: EXPORTED["spans"] for compression in Compression
    }


def test_exporters_without_the_token_store_nothing(applications: Path, database_url: str) -> None:
    flask = SERVERS["Flask in gunicorn"]
    with served(flask, applications, database_url, OTLP_TOKEN=TOKEN) as address:
        for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}):
            export(f"{address}/otlp", headers=headers)
    assert rows(database_url) == NOTHING
