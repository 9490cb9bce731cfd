"""Values that belong to one process, told by its id.

``os.register_at_fork`` is not enough. uWSGI forks in C, where Python does not see it, and the
gevent workers of gunicorn replace `threading` after the fork, when hooks have already made new
locks. So each use compares the process that made a value with the process that asks for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["PerProcess", "process_lock"]

T = TypeVar("T")

_locks: Final[dict[int, threading.Lock]] = {}


def process_lock() -> threading.Lock:
    """The one lock of this process. No thread of a parent process can hold it.

    Hold it only to replace what a parent process has left; nothing that waits may be done under it.
    """
    # `setdefault` is atomic, so threads that meet here get the same lock.
    return _locks.get(os.getpid()) or _locks.setdefault(os.getpid(), threading.Lock())


class PerProcess(Generic[T]):
    """A value that is made again in each process that asks for it.

    Args:
        make: makes the value; it must not ask for another value of this kind.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made = (os.getpid(), make())
        self._inherited: list[T] = []

    def get(self) -> T:
        """This process's value."""
        pid, value = self._made
        return value if pid == os.getpid() else self._renewed()

    def _renewed(self) -> T:
        with process_lock():
            pid, value = self._made
            if pid != os.getpid():
                # Kept, so that the child's garbage collector does not close what is the parent's.
                self._inherited.append(value)
                value = self._make()
                self._made = (os.getpid(), value)
            return value
