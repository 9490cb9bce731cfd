"""Applications that the pages of `docs/` show, as modules, in real servers."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.hosting import program, running, wait_until

__all__ = ["DJANGO", "FLASK", "example", "gunicorn", "served", "uwsgi", "write_applications"]

DOCS = Path(__file__).parents[2] / "docs"
FLASK = "flask_application:app"
DJANGO = "project.wsgi:application"

# What the applications answer by themselves.
FLASK_ROUTE = """
@app.get("/own")
def own():
    return "answered by the application"
"""
DJANGO_SETTINGS = """
import os
from django.http import HttpResponse
from django.urls import include, path
from psycopg.conninfo import conninfo_to_dict
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
WSGI_APPLICATION = "project.wsgi.application"
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 1
address = conninfo_to_dict(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": address.pop("dbname"),
        "OPTIONS": address,
    }
}
INSTALLED_APPS = ["observatory_storage.django"]
OBSERVATORY_SCHEMA = "public"
OBSERVATORY_OTLP_TOKENS = os.environ["OTLP_TOKEN"]
urlpatterns = [
    path("own", lambda request: HttpResponse("answered by the application")),
    path("otlp/", include("observatory_storage.django.urls")),
]
"""


def example(page: str, beginning: str) -> str:
    """The example of the page that contains this."""
    text = (DOCS / page).read_text()
    found = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (code,) = (code for code in found if beginning in code)
    return str(code)


def write_applications(folder: Path) -> Path:
    """The folder, with the example of docs/flask.md and a Django project as modules."""
    project = folder / "project"
    project.mkdir()
    (project / "__init__.py").touch()
    (folder / "flask_application.py").write_text(
        example("flask.md", "register_blueprint") + FLASK_ROUTE
    )
    (project / "settings.py").write_text(DJANGO_SETTINGS)
    (project / "wsgi.py").write_text(example("observing.md", "get_wsgi_application"))
    return folder


@contextmanager
def served(command: Sequence[str], applications: Path, url: str, **settings: str) -> Iterator[str]:
    """The address of the server that the command starts; ``{port}`` stands for its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = [part.format(port=port) for part in command]
    path = os.pathsep.join([str(applications), str(DOCS.parent)])
    with running(arguments, url, PYTHONPATH=path, **settings) as (process, output):
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
