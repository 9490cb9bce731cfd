"""Requests to an application whose answers tell how many spans it has recorded for them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import psycopg

__all__ = [
    "CLIENTS",
    "Ask",
    "Broken",
    "Refused",
    "Told",
    "Traffic",
    "asking_over_http",
    "check_stored",
]

CLIENTS: Final = 8
_TIMEOUT_SECS: Final = 120.0


@dataclass(frozen=True)
class Told:
    """What the answer to a request tells."""

    trace_id: str
    spans: int


class Refused(Exception):
    """Nobody took the request, which may be sent again."""


class Broken(Exception):
    """The connection broke before the answer: nobody knows whether the request was served."""


Ask = Callable[[str], Told]


@dataclass
class Traffic:
    """Requests of several clients at a time, which go on while the application restarts.

    Attributes:
        ask: sends one request.
        requests: how many to send.
        emitted: the spans of each trace that an answer told of.
        broken: how many requests broke off.
        refused: how often a client had to send a request again.
    """

    ask: Ask
    requests: int
    emitted: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    refused: int = 0
    _errors: list[BaseException] = field(default_factory=list)
    _begun: int = 0

    def __post_init__(self) -> None:
        self._changed = threading.Condition()

    @property
    def done(self) -> int:
        """How many requests have an answer or broke off."""
        return len(self.emitted) + self.broken

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send the requests beside the block, which ends when all have been answered."""
        clients = [threading.Thread(target=self._send, daemon=True) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        yield
        self.wait_for(self.requests)
        for client in clients:
            client.join(_TIMEOUT_SECS)
            assert not client.is_alive()

    def wait_for(self, requests: int) -> None:
        """Wait until so many are done. Raises the error of a client, if there was one."""
        with self._changed:
            while self.done < requests and not self._errors:
                known = self.done
                has_changed = self._changed.wait(_TIMEOUT_SECS)
                assert has_changed, f"no answer for {_TIMEOUT_SECS:g} s after {known}"
            if self._errors:
                raise self._errors[0]

    def _send(self) -> None:
        while (number := self._next()) is not None:
            try:
                told = self._answer(f"question {number}")
            except BaseException as error:  # noqa: BLE001 - raised by `wait_for`
                self._note(error=error)
                return
            self._note(told)

    def _next(self) -> int | None:
        with self._changed:
            if self._begun == self.requests or self._errors:
                return None
            self._begun += 1
            return self._begun

    def _answer(self, question: str) -> Told | None:
        deadline = time.monotonic() + _TIMEOUT_SECS
        while True:
            try:
                return self.ask(question)
            except Broken:
                return None
            except Refused:
                assert time.monotonic() < deadline, "refused for too long"
                with self._changed:
                    self.refused += 1
                time.sleep(0.02)  # until the application listens again

    def _note(self, told: Told | None = None, error: BaseException | None = None) -> None:
        with self._changed:
            if error is not None:
                self._errors.append(error)
            elif told is None:
                self.broken += 1
            else:
                assert told.trace_id not in self.emitted
                self.emitted[told.trace_id] = told.spans
            self._changed.notify_all()


def asking_over_http(port: int) -> Ask:
    """Sends requests to the application that listens on a port of this machine."""

    def ask(question: str) -> Told:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECS)
        try:
            try:
                connection.connect()
            except ConnectionRefusedError as error:
                raise Refused from error
            try:
                connection.request("GET", "/ask?" + urlencode({"question": question}))
                answer = connection.getresponse()
                body = answer.read()
            except (ConnectionError, http.client.HTTPException) as error:
                raise Broken from error
        finally:
            connection.close()
        assert answer.status == 200, (answer.status, body[:2000])
        told = json.loads(body)
        return Told(told["trace_id"], told["spans"])

    return ask


def check_stored(url: str, emitted: Mapping[str, int], broken: int = 0) -> None:
    """Compare the spans of each trace with what is stored: none is missing, none is there twice.

    Args:
        url: the database.
        emitted: the number of spans by trace.
        broken: how many requests broke off. Each may have been served, and stored a trace.
    """
    stored: dict[str, int] = {}
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT trace_id, count(*), count(DISTINCT span_id) FROM trace_spans GROUP BY trace_id"
        )
        for trace_id, spans, different in rows:
            assert isinstance(trace_id, UUID)
            assert spans == different, f"trace {trace_id.hex} has a span twice"
            stored[trace_id.hex] = spans
    wrong = [
        f"{trace_id}: {stored.get(trace_id, 0)} of {spans}"
        for trace_id, spans in emitted.items()
        if stored.get(trace_id) != spans
    ]
    assert not wrong, f"{len(wrong)} traces differ, among them {wrong[:10]}"
    unknown = sorted(stored.keys() - emitted.keys())
    assert len(unknown) <= broken, f"{len(unknown)} traces are of nobody, among them {unknown[:10]}"
