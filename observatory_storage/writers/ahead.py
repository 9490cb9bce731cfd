"""The sending end of a COPY, which lets the client be ahead of the server."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.copy import LibpqWriter

__all__ = ["Ahead", "sent"]

# A server parses a thousand rows of a COPY, and does not listen while it puts them into the table
# and its indexes. This much may wait for it meanwhile, so that the client goes on.
_WAITING_BYTES: Final = 8 * 1024 * 1024
# What the system may hold of it, and hands over by itself: a thread that has to wait for the
# interpreter, which another one uses, cannot (Linux takes the most that it allows instead).
_SOCKET_BYTES: Final = 4 * 1024 * 1024


class _Sent(threading.local):
    """How many bytes of rows this thread has sent since it began."""

    bytes = 0


sent: Final = _Sent()


class Ahead(LibpqWriter):
    """Sends the data of a COPY, and waits only for a server that is far behind."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        super().__init__(cursor)
        self.flush_threshold = _WAITING_BYTES
        # Over TCP the system finds the right size by itself, unless it is told one.
        with suppress(OSError), socket.socket(fileno=os.dup(cursor.connection.fileno())) as own:
            if own.family == getattr(socket, "AF_UNIX", None):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)

    def write(self, data: Any) -> None:
        sent.bytes += len(data)
        super().write(data)
