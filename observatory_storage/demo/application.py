"""The four services wired together, and run through simulated days."""

from __future__ import annotations

import random
from collections.abc import Iterator

from opentelemetry.trace import SpanContext

from observatory_storage.demo.assistant import Assistant, Gateway
from observatory_storage.demo.backends import ModelServer, Retriever
from observatory_storage.demo.chat import ChatClient
from observatory_storage.demo.outbox import Outbox
from observatory_storage.demo.retrieval import load_passages
from observatory_storage.demo.simulated import Clock
from observatory_storage.demo.telemetry import Service
from observatory_storage.demo.traffic import requests

__all__ = ["Application"]

_COLLECTION_NS = 3_600_000_000_000  # metrics are collected once in a simulated hour
_OUTAGE_NS = 45 * 60 * 1_000_000_000


class Application:
    """gateway -> assistant -> retriever and model-server."""

    def __init__(self, outbox: Outbox, *, traces: int, until: int, seed: int) -> None:
        self._requests = requests(traces, until, seed)
        self._seed = seed
        self._clock = Clock(self._requests[0].at)
        self._services = {
            name: Service(name, self._clock, outbox, seed=seed, delta=name == "model-server")
            for name in ("gateway", "assistant", "retriever", "model-server")
        }
        corpus = load_passages()
        retriever = Retriever(self._services["retriever"], corpus)
        broke = self._requests[len(self._requests) * 2 // 3].at
        models = ModelServer(
            self._services["model-server"], corpus, range(broke, broke + _OUTAGE_NS)
        )
        assistant = self._services["assistant"]
        self._gateway = Gateway(
            self._services["gateway"],
            Assistant(assistant, ChatClient(assistant, models), retriever),
        )

    def run(self) -> Iterator[int]:
        """Serve every request; yields the number served so far, after each simulated hour."""
        last: dict[str, SpanContext] = {}
        collect_at = self._clock.now + _COLLECTION_NS
        for number, request in enumerate(self._requests):
            if request.at >= collect_at:
                self._collect(collect_at)
                yield number
                collect_at += (request.at - collect_at) // _COLLECTION_NS * _COLLECTION_NS
                collect_at += _COLLECTION_NS
            self._clock.now = request.at
            session = request.question.session_id
            if request.opens_session:
                self._gateway.sessions.add(1)
            # Each request has dice of its own, so that one more draw in one changes no other.
            dice = random.Random(f"{self._seed} {number}")
            last[session] = self._gateway.ask(request.question, dice, last.get(session))
            if request.closes_session:
                self._gateway.sessions.add(-1)
        self._collect(collect_at)
        yield len(self._requests)

    def _collect(self, at: int) -> None:
        self._clock.now = at
        for service in self._services.values():
            service.collect_metrics()

    def shutdown(self) -> None:
        """End the providers of all services."""
        for service in self._services.values():
            service.shutdown()
