"""Serves a WSGI application until the process is asked to end.

This is the only module that needs the ``serve`` extra, which is cheroot.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any
from wsgiref.types import WSGIApplication

from cheroot.wsgi import Gateway_10, Server

__all__ = ["serve"]

# Senders keep their connection open between exports, which are seconds apart.
_IDLE_SECS = 30
_IDLE_CONNECTIONS = 1000
_SHUTDOWN_SECS = 30
_MOST_UNREAD_BYTES = 4 * 1024 * 1024


def serve(
    app: WSGIApplication, host: str, port: int, *, threads: int, started: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT. Then running requests are finished, for 30 seconds at most.

    Call it in the main thread, which gets the signals.

    Args:
        app: the application. It limits the size of bodies.
        host: the address to listen on.
        port: the port, or 0 for any that is free.
        threads: how many requests are handled at once.
        started: called with the URL when the server accepts connections.

    Raises:
        OSError: the address cannot be used.
    """
    server = Server(
        (host, port),
        app,
        numthreads=threads,
        max=threads,
        server_name="observatory-storage",
        timeout=_IDLE_SECS,
        shutdown_timeout=_SHUTDOWN_SECS,
    )
    server.gateway = _Gateway
    server.keep_alive_conn_limit = _IDLE_CONNECTIONS
    ended: SimpleQueue[None] = SimpleQueue()

    def run() -> None:
        try:
            server.serve()
        finally:
            ended.put(None)

    with _told_of_signals(ended):
        try:
            server.prepare()
            bound_host, bound_port = server.bind_addr[:2]
            shown = f"[{bound_host}]" if ":" in bound_host else bound_host
            started(f"http://{shown}:{bound_port}")
            thread = Thread(target=run, name="observatory-serve")
            thread.start()
            ended.get()
        finally:
            server.stop()
    thread.join()


class _Gateway(Gateway_10):
    """Closes the connection of a request whose body the application has not read.

    To keep it, cheroot would read the rest of the body into memory, whatever its size, or take the
    rest of a chunked body for the next request.
    """

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        unread = getattr(self.req.rfile, "remaining", 0)
        refused = status[:1] != "2"
        if unread > _MOST_UNREAD_BYTES or (refused and self.req.chunked_read):
            self.req.close_connection = True
        return super().start_response(status, headers, exc_info)


@contextmanager
def _told_of_signals(ended: SimpleQueue[None]) -> Iterator[None]:
    """SIGTERM and SIGINT put an item in the block, even if the shell ignores SIGINT.

    A handler that raised could do it where exceptions are dropped, such as in the callback of a
    weak reference, or where the server cannot clean up. ``SimpleQueue.put`` is reentrant.
    """

    def put(_: int, __: FrameType | None) -> None:
        ended.put(None)

    numbers = (signal.SIGTERM, signal.SIGINT)
    former = {number: signal.signal(number, put) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
