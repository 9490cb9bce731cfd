"""The applications of docs/otlp-http.md, in real servers, with OpenTelemetry's exporters."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression

from tests.commands import rows
from tests.hosts.hosting import names_stored, program, running, wait_until
from tests.web.exporting import EXPORTED, export

PAGE = Path(__file__).parents[2] / "docs" / "otlp-http.md"
TOKEN = "t0ken-of-the-test"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
NOTHING = dict.fromkeys(EXPORTED, 0)

# What the applications answer by themselves.
FLASK_ROUTE = """
@app.get("/own")
def own():
    return "answered by the application"
"""
DJANGO_SETTINGS = """
from django.http import HttpResponse
from django.urls import path
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
WSGI_APPLICATION = "project.wsgi.application"
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 1
urlpatterns = [path("own", lambda request: HttpResponse("answered by the application"))]
"""


def example(beginning: str) -> str:
    """The example of the page that contains this."""
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (code,) = (code for code in found if beginning in code)
    return str(code)


@pytest.fixture
def applications(tmp_path: Path) -> Path:
    """A folder with the examples as modules."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "__init__.py").touch()
    (tmp_path / "flask_application.py").write_text(example("import Flask") + FLASK_ROUTE)
    (project / "settings.py").write_text(DJANGO_SETTINGS)
    (project / "wsgi.py").write_text(example("get_wsgi_application"))
    return tmp_path


@contextmanager
def served(command: Sequence[str], applications: Path, url: str) -> Iterator[str]:
    """The address of the server that the command starts; ``{port}`` stands for its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = [part.format(port=port) for part in command]
    path = os.pathsep.join([str(applications), str(PAGE.parents[1])])
    with running(arguments, url, PYTHONPATH=path, OTLP_TOKEN=TOKEN) as (process, output):
        wait_until(lambda: is_open(port), process, output)
        yield f"http://127.0.0.1:{port}"


def is_open(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def gunicorn(application: str, *options: str) -> tuple[str, ...]:
    return (program("gunicorn"), "-b", "127.0.0.1:{port}", "-w", "2", *options, application)


def uwsgi(module: str) -> tuple[str, ...]:
    return (
        *(program("uwsgi"), "--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2"),
        *("--enable-threads", "--die-on-term", "--need-app", "--virtualenv", sys.prefix),
        *("--module", module),
    )


FLASK = "flask_application:app"
DJANGO = "project.wsgi:application"
SERVERS: Mapping[str, Sequence[str]] = {
    "Flask in gunicorn": gunicorn(FLASK, "-k", "gthread", "--threads", "4"),
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
    with served(SERVERS[server], applications, database_url) as address:
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
    with served(SERVERS["Flask in gunicorn"], applications, database_url) as address:
        for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}):
            export(f"{address}/otlp", headers=headers)
    assert rows(database_url) == NOTHING
