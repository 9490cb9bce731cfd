"""Real host programs, started on the applications of this package and ended as operators do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psycopg

REPOSITORY = Path(__file__).parents[2]
_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
_DEADLINE_SECS = 60.0
_CLIENTS = 8


@dataclass(frozen=True)
class Answer:
    """What the application told of a request."""

    process: int
    backend: int
    right: bool


@dataclass
class Host:
    """A host program that is running."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def ask(self, requests: int) -> list[Answer]:
        """The answers to that many requests, some of them at once."""

        def one(_: int) -> Answer:
            with urlopen(f"http://127.0.0.1:{self.port}/", timeout=30) as answer:
                return Answer(**json.loads(answer.read()))

        with ThreadPoolExecutor(_CLIENTS) as clients:
            return list(clients.map(one, range(requests)))

    def end(self, signal_: int = signal.SIGTERM) -> None:
        """Ask the host to end, and wait until it has."""
        self.process.send_signal(signal_)
        self.process.wait(_DEADLINE_SECS)


def program(name: str) -> str:
    """The path of a program that an extra of the development environment brings."""
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is not installed"
    return found


@contextmanager
def served(command: Sequence[str], url: str, **settings: str) -> Iterator[Host]:
    """The host that the command starts; in it ``{port}`` stands for a free port of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = [part.format(port=port) for part in command]
    with running(arguments, url, **settings) as (process, output):
        host = Host(process, port, output)
        _await(lambda: _is_open(port), process, output)
        yield host


@contextmanager
def running(
    command: Sequence[str], url: str, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A program on the tests' applications, in a process group that ends with the block."""
    own = {"DATABASE_URL": url, "PYTHONPATH": str(REPOSITORY), "PATH": _PATH}
    environment = {**os.environ, **own, **settings}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process, output
        finally:
            for signal_ in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    os.killpg(process.pid, signal_)
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        continue


def wait_until(condition: Any, process: subprocess.Popen[bytes], output: Path) -> None:
    """Poll until the condition holds, as long as the process runs and a minute at most."""
    _await(condition, process, output)


def names_stored(url: str) -> Counter[str]:
    """How many spans of each name are stored."""
    with psycopg.connect(url) as connection:
        return Counter(name for (name,) in connection.execute("SELECT name FROM trace_spans"))


def logs_stored(url: str) -> int:
    """How many log records are stored."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM logs").fetchone()
    assert row is not None
    return int(row[0])


def shared_backends(answers: Sequence[Answer]) -> set[int]:
    """The backends that more than one process has used."""
    users: dict[int, set[int]] = {}
    for answer in answers:
        users.setdefault(answer.backend, set()).add(answer.process)
    return {backend for backend, processes in users.items() if len(processes) > 1}


def _is_open(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=30):
            return True
    except (URLError, ConnectionError):
        return False


def _await(condition: Any, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_SECS
    while not condition():
        assert process.poll() is None, output.read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline, output.read_text(errors="replace")[-4000:]
        time.sleep(0.05)
