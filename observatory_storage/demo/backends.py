"""The two services behind the assistant: the retriever, and the server of the language models."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from observatory_storage.demo.model import MODELS, Completion, LanguageModel, ModelCard
from observatory_storage.demo.retrieval import Hit, Passage, Shard
from observatory_storage.demo.telemetry import Service

__all__ = ["Generated", "ModelServer", "RateLimitedError", "Retriever", "load_at"]

_HOUR_NS = 3_600_000_000_000
# The percentage of the capacity of the model server that is in use, by hour of the day.
_DAILY_LOAD = (
    "15 12 10 10 12 18 30 45 60 75 80 78 70 78 85 92 88 75 60 50 42 35 28 20"  # midnight to 11 pm
)


def load_at(moment: int) -> float:
    """The load of the model server at a time, from 0 to 1."""
    return int(_DAILY_LOAD.split()[moment // _HOUR_NS % 24]) / 100


class RateLimitedError(Exception):
    """The model server is overloaded (HTTP 429)."""


class Retriever:
    """Finds passages. Each file of the corpus is a shard; all shards are queried in parallel."""

    def __init__(self, service: Service, corpus: Mapping[str, list[Passage]]) -> None:
        self.service = service
        self._shards = {name: Shard(passages) for name, passages in corpus.items()}
        self._searches = service.meter.create_counter(
            "retriever.searches", unit="{search}", description="Searches, by whether one found"
        )
        size = service.meter.create_gauge(
            "retriever.index.passages", unit="{passage}", description="Passages in the index"
        )
        for name, shard in self._shards.items():
            size.set(len(shard.passages), {"shard": name})

    def search(self, headers: Mapping[str, str], query: str, rng: random.Random) -> list[Hit]:
        """The best passages of all shards."""
        clock = self.service.clock
        with self.service.serving("POST /search", headers) as span:
            asked = clock.now
            ended = asked
            hits: list[Hit] = []
            for name, shard in self._shards.items():
                clock.now = asked  # all shards begin at the same time
                attributes = {"retriever.shard": name, "gen_ai.retrieval.query.text": query}
                with self.service.span(f"bm25 {name}", attributes) as search:
                    found = shard.search(query)
                    clock.sleep(0.004 + 0.0006 * len(shard.passages) * rng.uniform(0.5, 1.5))
                    search.set_attribute("retriever.hits", len(found))
                ended = max(ended, clock.now)
                hits += found
            clock.now = ended
            best = sorted(hits, key=lambda hit: -hit.score)[:4]
            span.set_attribute("retriever.hits", len(best))
            self._searches.add(1, {"retriever.found": bool(best)})
            if not best:
                self.service.log.warning("nothing found for %r", query)
            return best


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer of the model server, with the seconds until the first token."""

    completion: Completion
    first_token_secs: float


class ModelServer:
    """Serves the language models at their published speeds, and more slowly under load.

    During the `outage` (nanoseconds since the epoch) it refuses most requests.
    """

    def __init__(
        self, service: Service, corpus: Mapping[str, list[Passage]], outage: range
    ) -> None:
        self.service = service
        self._outage = outage
        texts = [passage.text for passages in corpus.values() for passage in passages]
        self._models = {name: LanguageModel(card, texts) for name, card in MODELS.items()}
        self._first_token = service.meter.create_histogram(
            "gen_ai.server.time_to_first_token", unit="s", description="Time to the first token"
        )
        self._load = service.meter.create_gauge(
            "model_server.load", unit="1", description="Share of the capacity in use"
        )

    def generate(
        self,
        headers: Mapping[str, str],
        model: str,
        prompt: str,
        max_tokens: int,
        rng: random.Random,
    ) -> Generated:
        """Complete a prompt.

        Raises:
            RateLimitedError: the server is overloaded.
        """
        clock = self.service.clock
        load = load_at(clock.now)
        self._load.set(load, {"server.address": "model-server"})
        with self.service.serving("POST /v1/chat", headers) as span:
            clock.sleep(0.002)
            # For the server a refusal is an answer, not an error: the status of its span stays
            # unset, and that of the caller's span becomes an error.
            refused = 0.9 if clock.now in self._outage else load**8 / 3
            if rng.random() < refused:
                span.set_attribute("http.response.status_code", 429)
                self.service.log.warning("queue is full, refused a request for %s", model)
                generated = None
            else:
                generated = self._generate(MODELS[model], prompt, max_tokens, rng)
                span.set_attribute("http.response.status_code", 200)
        if generated is None:
            raise RateLimitedError(f"429 from model-server: {model} is at its limit of requests")
        return generated

    def _generate(
        self, card: ModelCard, prompt: str, max_tokens: int, rng: random.Random
    ) -> Generated:
        clock = self.service.clock
        load = load_at(clock.now)
        came = clock.now
        completion = self._models[card.name].complete(prompt, max_tokens)
        slower = (1 + 2 * load**2) * rng.lognormvariate(0, 0.25)
        if rng.random() < 0.004:
            slower *= 25  # a stuck accelerator: the caller times out
        with self.service.span("queue"):
            clock.sleep(0.3 * load**3 * rng.random())
        with self.service.span("prefill", {"model_server.tokens": completion.prompt_tokens}):
            clock.sleep(0.01 + completion.prompt_tokens / card.prefill_tokens_per_sec * slower)
        first_token_secs = (clock.now - came) / 1e9
        with self.service.span("decode", {"model_server.tokens": completion.completion_tokens}):
            clock.sleep(completion.completion_tokens / card.decode_tokens_per_sec * slower)
        self._first_token.record(first_token_secs, {"gen_ai.request.model": card.name})
        return Generated(completion, first_token_secs)
