"""The client of the supervisor: starts it, sends requests, and closes it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from observatory_storage.errors import StorageError

Signals = Sequence[tuple[str, float]]
"""Names of signals, each with the seconds to wait before the next one is sent."""


class EmbeddedServerError(StorageError):
    """The embedded server could not be started or used."""


@dataclass(frozen=True, slots=True)
class User:
    """The user of the operating system that a server runs as."""

    uid: int
    gid: int
    name: str


class Supervised:
    """A server and its supervisor.

    Only the process that created it can send requests. In a forked child every call does nothing,
    and the copy of the pipe is closed, so that the server ends with its owner.

    Args:
        remove: folders to remove when the server has stopped for good.
        end_signals: the signals that stop the server when this process ends or calls `close`.
        user: the user that the server runs as. None means the current user.
        keep_open: file descriptors, such as that of a lock, that the supervisor keeps open.
    """

    def __init__(
        self,
        *,
        remove: Sequence[Path],
        end_signals: Signals,
        user: User | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self._remove = [str(folder) for folder in remove]
        self._user = user
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        options = json.dumps({"remove": self._remove, "end_signals": list(end_signals)})
        supervisor = str(Path(__file__).with_name("supervisor.py"))
        self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - a file of this package
            [_python(), "-I", "-S", supervisor, options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # a buffer could be flushed a second time by a forked child
            cwd="/",
            start_new_session=True,
            pass_fds=keep_open,
        )
        _alive.add(self)

    @property
    def owned(self) -> bool:
        """Whether this process created the server. A forked child did not."""
        return os.getpid() == self._owner

    @property
    def closed(self) -> bool:
        """Whether the supervisor has been closed."""
        return self._process.stdin is None or self._process.stdin.closed

    def run(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Run a program to its end as the user of the server. Returns its exit code."""
        code = self._ask({"do": "run", **self._program(argv, env, log)})["exit"]
        return int(code)

    def start(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start the server. Returns its process id."""
        return int(self._ask({"do": "start", **self._program(argv, env, log)})["pid"])

    def poll(self) -> int | None:
        """The exit code of the server, or None if it is running or was never started."""
        return self._exit({"do": "poll"})

    def stop(self, signals: Signals) -> int | None:
        """Send one signal after the other until the server has ended. Returns its exit code."""
        return self._exit({"do": "stop", "signals": list(signals)})

    def kill(self) -> int | None:
        """Kill the server and its children with SIGKILL. Returns its exit code."""
        return self._exit({"do": "kill"})

    def close(self) -> None:
        """Stop the server, remove its temporary folders, and end the supervisor."""
        if self.closed or not self.owned:
            return
        # If the supervisor was killed, its folders are removed below.
        with contextlib.suppress(EmbeddedServerError):
            self._ask({"do": "close"})
        self._close_pipes()
        self._process.wait()
        for folder in self._remove:
            shutil.rmtree(folder, ignore_errors=True)
        _alive.discard(self)

    def _program(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> dict[str, object]:
        return {
            "argv": list(argv),
            "env": dict(env),
            "log": str(log),
            "uid": self._user.uid if self._user else None,
            "gid": self._user.gid if self._user else None,
        }

    def _exit(self, request: dict[str, object]) -> int | None:
        if not self.owned:
            return None
        code = self._ask(request)["exit"]
        return None if code is None else int(code)

    def _ask(self, request: dict[str, object]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if self.closed or stdin is None or stdout is None:
            raise EmbeddedServerError("the embedded server has been closed")
        with self._lock:
            number = next(self._numbers)
            try:
                stdin.write(json.dumps({"id": number, **request}).encode() + b"\n")
                # The pipe may still contain the answer to a request that Ctrl-C interrupted.
                while (answer := json.loads(stdout.readline() or b"{}")).get("id", -1) < number:
                    if not answer:
                        raise EmbeddedServerError("the embedded server's supervisor has ended")
            except (BrokenPipeError, json.JSONDecodeError) as error:
                raise EmbeddedServerError("the embedded server's supervisor has ended") from error
        if "error" in answer:
            raise EmbeddedServerError(f"the embedded server cannot be run: {answer['error']}")
        return dict(answer)

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def forget(self) -> None:
        """In a forked child, close this copy of the pipe, so that only the owner has it."""
        self._close_pipes()
        # The supervisor is not a child of this process. A return code avoids a ResourceWarning.
        self._process.returncode = 0


_alive: weakref.WeakSet[Supervised] = weakref.WeakSet()


def _forget_all() -> None:
    for supervised in list(_alive):
        supervised.forget()
    _alive.clear()


os.register_at_fork(after_in_child=_forget_all)


def _python() -> str:
    """A Python interpreter. `sys.executable` may be an application that embeds one (uWSGI)."""
    if "python" in Path(sys.executable or "").name:
        return sys.executable
    return shutil.which("python3") or "python3"
