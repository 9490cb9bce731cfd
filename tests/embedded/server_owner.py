"""Another process that runs an embedded server, and what tests ask about processes and servers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psycopg

REPOSITORY = Path(__file__).parents[2]
DEADLINE_SECS = 30.0

# Starts a server, prints its process id and its folders, and keeps it until standard input ends.
OWNER = """
import os, signal, sys, time
from observatory_embedded import EmbeddedPostgres, FAST_SETTINGS
{before}
memory = len(sys.argv) == 1
with EmbeddedPostgres(*sys.argv[1:], settings=FAST_SETTINGS, in_memory=memory) as server:
    {inside}
    print(server.pid, server.data_folder, server.url.partition("host=")[2], flush=True)
    sys.stdin.read()
"""


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Whether the process is running. A zombie is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:  # it ended after the file was opened
        return False
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()


def select_value(url: str, query: str) -> object:
    """The first value that the last of the statements returns."""
    with psycopg.connect(url) as connection, connection.execute(query.encode()) as cursor:
        while cursor.nextset():
            pass
        row = cursor.fetchone()
    assert row is not None
    return row[0]


class ServerOwner:
    """Another process that runs an embedded server."""

    def __init__(self, *arguments: object, before: str = "", inside: str = "pass") -> None:
        code = OWNER.format(before=before, inside=inside)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *(str(argument) for argument in arguments)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        server, data, sockets = self.process.stdout.readline().split()
        self.server = int(server)
        self.folders = [Path(data), Path(sockets)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        assert eventually(lambda: not is_running(self.server))

    def left_nothing(self) -> bool:
        return eventually(
            lambda: (
                not is_running(self.server) and not any(folder.exists() for folder in self.folders)
            )
        )
