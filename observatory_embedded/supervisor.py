"""The supervisor: a small process that ends an embedded server when its owner ends.

It runs in its own session, so that Ctrl-C in a terminal does not reach it, and has the read end of
a pipe from the owner. When the pipe closes, however the owner ended, it stops the server and
removes the temporary folders. It is started by the path of this file, and imports only the standard
library. It is the parent of the server, so the process id of the server cannot be reused.

Requests arrive as JSON lines on standard input. Each is answered by one line on standard output:

    {"do": "run", "argv", "env", "uid", "gid", "log"}    run to the end        -> {"exit": code}
    {"do": "start", "argv", "env", "uid", "gid", "log"}  start the server      -> {"pid": pid}
    {"do": "poll"}                                       has it ended?         -> {"exit": code}
    {"do": "stop", "signals": [[name, seconds], ...]}    until one helps       -> {"exit": code}
    {"do": "kill"}                                       -9, with its children -> {"exit": code}
    {"do": "close"}                                      stop, remove and end  -> {}

The exit code is null while the server runs. An answer with "error" says what went wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

_STEP_SECS = 0.01
_KILLED_SECS = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
_SYSV_SEGMENT = re.compile(r"^\S+ \S+ \S+ \S+ (\d+) +/SYSV", re.MULTILINE)
_POSIX_SEGMENT = re.compile(r"(/dev/shm/PostgreSQL\.\d+)")


class _Closed(Exception):
    """The pipe is closed, or the supervisor was told to end."""


class Supervisor:
    """Serves the requests of one owner about one server."""

    def __init__(self, remove: list[str], end_signals: list[list[Any]]) -> None:
        self._remove = remove
        self._end_signals = end_signals
        self._server: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def serve(self) -> None:
        """Answer requests until the owner closes the pipe, then stop and remove everything."""
        last: int | None = None
        try:
            while True:
                request = self._next_request()
                if request["do"] == "close":
                    last = request["id"]
                    break
                self._answer(request["id"], self._do(request))
        except _Closed:
            pass
        finally:
            signal.signal(signal.SIGTERM, _unheeded)
            self._stop(self._end_signals)
            for folder in self._remove:
                _remove(folder)
        if last is not None:
            self._answer(last, {})

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        what = request["do"]
        try:
            if what == "run":
                return {"exit": self._run(request)}
            if what == "start":
                self._server = self._popen(request)
                return {"pid": self._server.pid}
        except (OSError, subprocess.SubprocessError) as error:
            return {"error": str(error)}
        if what == "stop":
            return {"exit": self._stop(request["signals"])}
        if what == "kill":
            return {"exit": self._kill()}
        return {"exit": self._server.poll() if self._server else None}

    def _run(self, request: dict[str, Any]) -> int:
        process = self._popen(request)
        while (code := process.poll()) is None:
            try:
                self._wait_for_input(_STEP_SECS)
            except _Closed:
                # Kill the whole session, since initdb starts a server process.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        return code

    def _popen(self, request: dict[str, Any]) -> subprocess.Popen[bytes]:
        own_user: dict[str, Any] = {}
        if request["uid"] is not None:
            own_user = {"user": request["uid"], "group": request["gid"], "extra_groups": []}
        with open(request["log"], "ab") as log:
            return subprocess.Popen(  # noqa: S603 - the arguments are of this package, without a shell
                request["argv"],
                env=request["env"],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
                preexec_fn=self._end_with_us,  # noqa: PLW1509 - safe, as this process has one thread
                **own_user,
            )

    def _end_with_us(self) -> None:
        """In the new process, before exec, ask for a signal if the supervisor is killed."""
        if sys.platform == "linux":
            number = signal.Signals[self._end_signals[0][0]]
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))

    def _stop(self, signals: list[list[Any]]) -> int | None:
        server = self._server
        if server is None:
            return None
        for name, seconds in signals:
            if server.poll() is not None:
                break
            if name == "SIGKILL":
                self._kill()
            else:
                server.send_signal(signal.Signals[name])
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(seconds)
        return server.poll()

    def _kill(self) -> int | None:
        """Kill the server and its children with SIGKILL, and free their shared memory."""
        server = self._server
        if server is None or server.poll() is not None:
            return server.returncode if server else None
        children = _children(server.pid)
        maps = "\n".join(_read(f"/proc/{process}/maps") for process in (server.pid, *children))
        server.kill()
        code = server.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + _KILLED_SECS
        while any(_alive(child) for child in children) and time.monotonic() < deadline:
            time.sleep(_STEP_SECS)  # only a parent can wait for a process, and it was the server
        for segment in set(_POSIX_SEGMENT.findall(maps)):
            with contextlib.suppress(OSError):
                os.unlink(segment)
        for identifier in set(_SYSV_SEGMENT.findall(maps)):
            ctypes.CDLL(None).shmctl(int(identifier), _IPC_RMID, None)
        return code

    def _next_request(self) -> dict[str, Any]:
        while b"\n" not in self._pending:
            self._wait_for_input(None)
        line, _, self._pending = self._pending.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        return request

    def _wait_for_input(self, seconds: float | None) -> None:
        if select.select([0], [], [], seconds)[0]:
            data = os.read(0, 65536)
            if not data:
                raise _Closed
            self._pending += data

    @staticmethod
    def _answer(number: int, answer: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the owner is gone, and the pipe is closed too
            os.write(1, json.dumps({"id": number, **answer}).encode() + b"\n")


def _children(parent: int) -> list[int]:
    """The ids of direct children, which include all backends. Empty without /proc."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        # The name may contain blanks and parentheses. The parent follows the last one.
        fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split() if name.isdigit() else []
        if len(fields) > 1 and fields[1] == str(parent):
            found.append(int(name))
    return found


def _alive(process: int) -> bool:
    """Whether an orphan of the server is running. Reaps it if it has ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(process, os.WNOHANG)[0] == 0
    state = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return bool(state) and state[0] not in "ZX"


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _remove(folder: str) -> None:
    """Remove the folder. Retries, since a killed process may still be writing into it."""
    deadline = time.monotonic() + _KILLED_SECS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder) or time.monotonic() > deadline:
            break
        time.sleep(_STEP_SECS)


def _unheeded(number: int, frame: object) -> None:
    """Do nothing. Unlike SIG_IGN, the server does not inherit a handler through exec."""


def _terminated(number: int, frame: object) -> None:
    raise _Closed


def main() -> None:
    """Serve the owner, which holds the other end of standard input."""
    options = json.loads(sys.argv[1])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # Popen restores the default for the server
    signal.signal(signal.SIGINT, _unheeded)
    signal.signal(signal.SIGHUP, _unheeded)
    signal.signal(signal.SIGTERM, _terminated)
    if sys.platform == "linux":
        # Reap the orphans of a killed server, since process 1 of a container often does not.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    Supervisor(options["remove"], options["end_signals"]).serve()


if __name__ == "__main__":
    main()
