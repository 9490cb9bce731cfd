"""Connects the four services and runs them through simulated days."""

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
    """The services: the gateway calls the assistant, which calls retriever and model-server."""

    def __init__(self, outbox: Outbox, *, traces: int, until: int, seed: int) -> None:
        self._requests = requests(traces, until, seed)
        self._seed = seed
        self._clock = Clock(self._requests[0].time_ns)
        self._services = {
            name: Service(name, self._clock, outbox, seed=seed, delta=name == "model-server")
            for name in ("gateway", "assistant", "retriever", "model-server")
        }
        corpus = load_passages()
        retriever = Retriever(self._services["retriever"], corpus)
        outage_start = self._requests[len(self._requests) * 2 // 3].time_ns
        models = ModelServer(
            self._services["model-server"], corpus, range(outage_start, outage_start + _OUTAGE_NS)
        )
        assistant = self._services["assistant"]
        self._gateway = Gateway(
            self._services["gateway"],
            Assistant(assistant, ChatClient(assistant, models), retriever),
        )

    def run(self) -> Iterator[int]:
        """Serve all requests. Yields the number served so far after each simulated hour."""
        last: dict[str, SpanContext] = {}
        next_collection = self._clock.now + _COLLECTION_NS
        for number, request in enumerate(self._requests):
            if request.time_ns >= next_collection:
                self._collect(next_collection)
                yield number
                elapsed = request.time_ns - next_collection
                next_collection += (elapsed // _COLLECTION_NS + 1) * _COLLECTION_NS
            self._clock.now = request.time_ns
            session = request.question.session_id
            if request.opens_session:
                self._gateway.sessions.add(1)
            # Each request has its own generator, so one more draw in it changes no other request.
            rng = random.Random(f"{self._seed} {number}")
            last[session] = self._gateway.ask(request.question, rng, last.get(session))
            if request.closes_session:
                self._gateway.sessions.add(-1)
        self._collect(next_collection)
        yield len(self._requests)

    def _collect(self, time_ns: int) -> None:
        self._clock.now = time_ns
        for service in self._services.values():
            service.collect_metrics()

    def shutdown(self) -> None:
        """Shut down the providers of all services."""
        for service in self._services.values():
            service.shutdown()
