"""Answers over HTTP how the store is, as a WSGI application. `health.create_app` makes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["PATHS", "Answer", "HealthApp"]

logger = logging.getLogger(__name__)

PATHS: Final = ("/health", "/health/live", "/health/ready", "/metrics")
_METHODS: Final = ("GET", "HEAD")
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT

    @classmethod
    def json(cls, content: Any, *, ok: bool) -> Answer:
        """An answer that platforms read from the status, and people from the content."""
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        return cls(status, json.dumps(content).encode(), "application/json")


@dataclass(frozen=True, slots=True)
class HealthApp:
    """Answers requests by paths.

    Attributes:
        answers: the functions that answer, by path. They get the header ``Accept``.
    """

    answers: dict[str, Callable[[str], Answer]]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = self._answer(environ)
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
        ]
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", ", ".join(_METHODS)))
        start_response(f"{answer.status.value} {answer.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        path = environ.get("PATH_INFO", "")
        answer = self.answers.get(path)
        if answer is None:
            there = f"not found; there are {', '.join(self.answers)}\n"
            return Answer(HTTPStatus.NOT_FOUND, there.encode())
        if environ["REQUEST_METHOD"] not in _METHODS:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD are allowed\n")
        try:
            return answer(environ.get("HTTP_ACCEPT", ""))
        except Exception:
            # The text of an error may name servers and users: only the log has it.
            logger.exception("%s could not be answered", path)
            failed = b"failed; the log of the server says why\n"
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, failed)
