"""Our side of the supervisor: start it, ask it, and give it up at the end."""

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
"""Signals' names, each with the seconds to wait before the next one is sent."""


class EmbeddedServerError(StorageError):
    """The embedded server could not be started or used."""


@dataclass(frozen=True, slots=True)
class User:
    """The operating system's user that a server runs as."""

    uid: int
    gid: int
    name: str


class Supervised:
    """One server below one supervisor.

    Only the process that made it can ask for anything: in a forked child every call does nothing,
    and the child's copy of the pipe is closed, so that the server ends with its owner.

    Args:
        remove: folders to remove when the server has stopped for good.
        end_signals: how to stop the server when we end or close.
        user: whom the server runs as; None is the caller.
        keep_open: file descriptors that stay open as long as the supervisor lives (a lock).
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
        self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own file
            [_python(), "-I", "-S", supervisor, options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # nothing of ours that a forked child could flush a second time
            cwd="/",
            start_new_session=True,
            pass_fds=keep_open,
        )
        _alive.add(self)

    @property
    def owned(self) -> bool:
        """Whether this process made the server; a forked child did not."""
        return os.getpid() == self._owner

    @property
    def closed(self) -> bool:
        """Whether the supervisor has been given up."""
        return self._process.stdin is None or self._process.stdin.closed

    def run(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Run a program to its end, as the server's user; its exit code."""
        code = self._ask({"do": "run", **self._program(argv, env, log)})["exit"]
        return int(code)

    def start(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start the server; its process id."""
        return int(self._ask({"do": "start", **self._program(argv, env, log)})["pid"])

    def poll(self) -> int | None:
        """The exit code of the server, None while it runs or has never been started."""
        return self._exit({"do": "poll"})

    def stop(self, signals: Signals) -> int | None:
        """Send one signal after the other until the server has ended; its exit code."""
        return self._exit({"do": "stop", "signals": list(signals)})

    def kill(self) -> int | None:
        """Kill the server and its children with SIGKILL; its exit code."""
        return self._exit({"do": "kill"})

    def close(self) -> None:
        """Stop the server, remove its temporary folders, end the supervisor."""
        if self.closed or not self.owned:
            return
        # Where the supervisor has been killed, its folders are ours to remove.
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
                # An answer to a request that a Ctrl-C interrupted may still be in the pipe.
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
        """In a forked child: close this copy of the pipe, so that only the owner holds it."""
        self._close_pipes()
        # The process is another's child: nothing to wait for, and no warning that we did not.
        self._process.returncode = 0


_alive: weakref.WeakSet[Supervised] = weakref.WeakSet()


def _forget_all() -> None:
    for supervised in list(_alive):
        supervised.forget()
    _alive.clear()


os.register_at_fork(after_in_child=_forget_all)


def _python() -> str:
    """A Python interpreter: `sys.executable` may be an application that embeds one (uWSGI)."""
    if "python" in Path(sys.executable or "").name:
        return sys.executable
    return shutil.which("python3") or "python3"
