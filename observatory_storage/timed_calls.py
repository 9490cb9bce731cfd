"""Questions to servers, which are given up after a time."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["answers_within"]

T = TypeVar("T")


def answers_within(questions: Mapping[str, Callable[[], T]], timeout: float) -> dict[str, T]:
    """Ask each question in a thread of its own, and return what was answered in time, by name.

    The threads have the caller's context variables, so that what it does not want to be recorded or
    reported is not.

    Args:
        questions: what to call; they do not raise.
        timeout: seconds for all answers together.

    Raises:
        RuntimeError: no thread can be started, for example since the interpreter ends.
    """
    found: dict[str, T] = {}

    def answer(name: str) -> None:
        found[name] = questions[name]()

    threads = [
        # A server that was paused does not answer a cancellation either, so a thread that is late
        # is abandoned.
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(answer, name),
            name=f"observatory-{name}",
            daemon=True,
        )
        for name in questions
    ]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {name: found[name] for name in questions if name in found}
