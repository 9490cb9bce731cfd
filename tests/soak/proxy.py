"""A door to the server that breaks connections at their commits."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

__all__ = ["CUTS", "Proxy", "proxied"]

# As psycopg sends it: a simple query, in one piece.
_COMMIT: Final = b"Q\x00\x00\x00\x0bCOMMIT\x00"
_CHUNK: Final = 65536
_PORT: Final = 5432
# Where a connection breaks: the server never sees the commit; it sees it, and may or may not be
# done with it by then; it has answered, and the answer does not arrive.
CUTS: Final = ("unsent", "unanswered", "answered")


class Proxy:
    """Connections to a server's socket, of which some are cut.

    Attributes:
        cuts: how many connections were cut, by where.
    """

    def __init__(self, folder: Path, server: Path, source: random.Random, share: float) -> None:
        self._server = server
        self._source = source
        self._share = share
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / f".s.PGSQL.{_PORT}"))
        self._listening.listen(64)
        self.cuts: Counter[str] = Counter()
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        """Take no more connections; those that are open end with their clients."""
        self._share = 0.0
        self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server))
            self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        others = {client: server, server: client}
        while True:
            for end in select.select([client, server], [], [])[0]:
                data = end.recv(_CHUNK)
                if not data:
                    return
                cut = self._cut(data) if end is client else None
                if cut != "unsent":
                    others[end].sendall(data)
                if cut == "answered":
                    server.recv(_CHUNK)
                if cut is not None:
                    return

    def _cut(self, data: bytes) -> str | None:
        if not data.endswith(_COMMIT):
            return None
        with self._lock:
            if self._source.random() >= self._share:
                return None
            cut = self._source.choice(CUTS)
            self.cuts[cut] += 1
            return cut


@contextmanager
def proxied(
    url: str, folder: Path, source: random.Random, share: float
) -> Iterator[tuple[str, Proxy]]:
    """The URL of the same database through a proxy that cuts this share of all commits."""
    address = conninfo_to_dict(url)
    server = Path(str(address["host"])) / f".s.PGSQL.{address.get('port', _PORT)}"
    proxy = Proxy(folder, server, source, share)
    try:
        yield f"postgresql://postgres@/{address['dbname']}?host={quote(str(folder))}", proxy
    finally:
        proxy.close()
