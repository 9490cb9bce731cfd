"""Under uWSGI and gunicorn each request gets its own answer, and what it wrote is stored."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.hosts.hosting import (
    Host,
    logs_stored,
    names_stored,
    program,
    served,
    shared_backends,
    wait_until,
)
from tests.soak.scale import scaled

REQUESTS = 40
APPLICATION = "tests.hosts.wsgi_application"
UWSGI = (
    *("uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2"),
    *("--module", APPLICATION, "--die-on-term", "--need-app"),
    *("--virtualenv", sys.prefix, "--worker-reload-mercy", "20", "--stats", "stats"),
)
GUNICORN = ("gunicorn", "-b", "127.0.0.1:{port}", "-w", "2", f"{APPLICATION}:application")


def check(host: Host, url: str) -> None:
    answers = host.ask(REQUESTS)
    assert all(answer.right for answer in answers)
    assert shared_backends(answers) == set()
    if (stats := host.output.with_name("stats")).exists():
        wait_until(lambda: uwsgi_is_idle(stats), host.process, host.output)
    host.end()
    # The first request, which found the host open, has written too.
    assert names_stored(url)["request"] > REQUESTS
    assert logs_stored(url) == names_stored(url)["request"]


@pytest.mark.parametrize(
    "options",
    [
        ("--enable-threads",),
        ("--enable-threads", "--lazy-apps"),
        ("--threads", "3"),
        (),
        # Also as `tests/soak/test_examples.py` starts it.
        *scaled([], [("--enable-threads", "--py-call-uwsgi-fork-hooks")]),
    ],
    ids=" ".join,
)
def test_uwsgi(options: tuple[str, ...], database_url: str) -> None:
    command = [program(UWSGI[0]), *UWSGI[1:], *options]
    with served(command, database_url) as host:
        check(host, database_url)


def uwsgi_is_idle(socket_path: Path) -> bool:
    """uWSGI runs no atexit in a worker that a signal ends before its request is over."""
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(str(socket_path))
        with stats.makefile() as file:
            return all(worker["status"] == "idle" for worker in json.load(file)["workers"])


@pytest.mark.parametrize(
    "options",
    [
        ("-k", "sync"),  # with --preload below
        ("-k", "sync", "--max-requests", "20", "--preload"),
        ("-k", "gthread", "--threads", "4", "--preload"),
        ("-k", "gevent", "--preload"),
        *scaled([], [("-k", "gevent")]),
    ],
    ids=" ".join,
)
def test_gunicorn(options: tuple[str, ...], database_url: str) -> None:
    command = [program(GUNICORN[0]), *GUNICORN[1:], *options]
    with served(command, database_url) as host:
        check(host, database_url)


def test_gunicorn_reloads_on_hup(database_url: str) -> None:
    command = [program(GUNICORN[0]), *GUNICORN[1:], "--preload"]
    with served(command, database_url) as host:
        before = host.ask(REQUESTS)
        host.process.send_signal(signal.SIGHUP)
        check(host, database_url)
        assert names_stored(database_url)["request"] > len(before) + REQUESTS
