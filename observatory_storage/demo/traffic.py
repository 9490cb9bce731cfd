"""Generates the questions of simulated users over simulated days."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from observatory_storage.demo.assistant import Question
from observatory_storage.demo.backends import load_at

__all__ = ["DAYS", "Request", "requests"]

DAYS = 4
_SECOND_NS = 1_000_000_000
_USERS = 25
_LONGEST_SESSION = 6
# The time that the last trace of a session may need, so that it ends before the present.
_MARGIN_NS = 30 * 60 * _SECOND_NS

_QUESTIONS = (
    "Why did the crow lose the cheese?",
    "What did the lion promise the mouse?",
    "How did the tortoise win the race against the hare?",
    "Who is to bell the cat?",
    "Why did the wolf eat the lamb?",
    "What did the country mouse say about the cakes and the ale?",
    "Why are the grapes sour?",
    "How did the crow drink from the pitcher?",
    "What did the ant do in summer, and the grasshopper in winter?",
    "What happened to the goose that laid golden eggs?",
    "Did the villagers believe the shepherd boy?",
    "Was the wind stronger than the sun?",
    "Why did the frogs want a king, and what did Jove send?",
    "What did Lincoln say about malice and charity?",
    "How long ago did our fathers bring forth a new nation?",
    "What shall not perish from the earth?",
    "Which rights are unalienable?",
    "When may the people alter or abolish their government?",
    "What does the constitution establish for posterity?",
    "May soldiers be quartered in a house in time of peace?",
    "What protects the freedom of speech and of the press?",
    "To what shall I compare thee?",
    "Is love an ever fixed mark?",
    "Are coral and roses more red than her lips and cheeks?",
    "What outlives marble and gilded monuments?",
    "xylophone quizzes zigzag?",
    "How much is 4 * 20 + 7?",
    "How many lines do 6 sonnets have, so what is 6 * 14?",
    "How many years lie between, that is 1865 - 1776?",
    "What is 12 / (5 - 5)?",
    "Divide the spoil: how much is (4 - 1) / 4 of a stag?",
    "What is 3 * (7 + ?",
)


@dataclass(frozen=True, slots=True)
class Request:
    """A question, and its time in nanoseconds since the epoch."""

    time_ns: int
    question: Question
    opens_session: bool
    closes_session: bool


def requests(count: int, until: int, seed: int) -> list[Request]:
    """`count` requests in the `DAYS` before `until`, the earliest first."""
    rng = random.Random(seed)
    found: list[Request] = []
    number = 0
    while len(found) < count:
        number += 1
        size = min(rng.randint(1, _LONGEST_SESSION), count - len(found))
        found += _session(f"session-{number:04d}", size, until, rng)
    return sorted(found, key=lambda request: request.time_ns)


def _session(name: str, size: int, until: int, rng: random.Random) -> Iterator[Request]:
    user = rng.randrange(_USERS)
    # The plan of a user is the same in all sessions.
    model = ("quill-mini", "quill-mini", "scribe-1", "quill-large")[user % 4]
    time_ns = _arrival(until, rng)
    for turn in range(1, size + 1):
        question = Question(f"user-{user:02d}", name, model, rng.choice(_QUESTIONS))
        yield Request(time_ns, question, turn == 1, turn == size)
        time_ns += round(rng.uniform(40, 200) * _SECOND_NS)


def _arrival(until: int, rng: random.Random) -> int:
    """A random time, more likely in the busy hours."""
    latest = until - _MARGIN_NS
    while True:
        time_ns = latest - rng.randrange(DAYS * 24 * 3600 * _SECOND_NS)
        if rng.random() < load_at(time_ns):
            return time_ns
