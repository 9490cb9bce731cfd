"""A server on loopback: it answers as the vendors' APIs do, and receives OTLP."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import Message

from tests.otlp.otlp import REQUESTS
from tests.recordings.record import anthropic_api, gemini_api, openai_api
from tests.recordings.record.calls import FIRST_CHUNK_MS, Call

__all__ = ["Recorder", "serving"]


class Recorder:
    """What the server has answered and received."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.received: list[tuple[str, Message]] = []


@contextmanager
def serving() -> Iterator[tuple[str, Recorder]]:
    """A server on a free port: its URL, and what it records."""
    recorder = Recorder()

    class Handler(_Handler):
        records = recorder

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", recorder
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    records: Recorder
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        path = self.path.partition("?")[0]
        signal = path.rpartition("/v1/")[2]
        if signal in REQUESTS:
            message = REQUESTS[signal]()
            message.ParseFromString(body)
            self.records.received.append((signal, message))
            self._respond(200, b"", "application/x-protobuf")
            return
        call, response = self._answer(path, body.decode())
        self.records.calls.append(call)
        if isinstance(response, dict):
            self._respond(call.status, json.dumps(response).encode(), "application/json")
        else:
            self._stream(response, ends=path.endswith("/chat/completions"))

    def _answer(self, path: str, text: str) -> tuple[Call, Any]:
        body = json.loads(text)
        if path.endswith("/v1/messages"):
            return anthropic_api.answer(body, text)
        if "/v1beta/models/" in path:
            return gemini_api.answer(path, body, text)
        return openai_api.answer(path, body, text)

    def _respond(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: Iterator[tuple[str | None, Any]], *, ends: bool) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()
        time.sleep(FIRST_CHUNK_MS / 1000)
        for name, data in events:
            named = f"event: {name}\n" if name else ""
            self.wfile.write(f"{named}data: {json.dumps(data)}\n\n".encode())
            self.wfile.flush()
        if ends:
            self.wfile.write(b"data: [DONE]\n\n")
