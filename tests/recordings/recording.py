"""Recordings: what the programs of `record` exported, and what it should be read as."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.recordings.record.programs.conversation import WORDS

__all__ = ["DATA", "ENVIRONMENT", "RECORDINGS", "Recording", "expected_words"]

DATA = Path(__file__).parent / "data"
ENVIRONMENT = "quay"


@dataclass(frozen=True)
class Recording:
    """A scenario of an instrumentation.

    Attributes:
        requests: signal and OTLP/JSON, in the order of their arrival.
        told: facts that the program told the instrumentation, or the instrumentation the program.
        unsent: facts that were not exported.
        calls: what the vendor's server said, a mapping for each call.
    """

    name: str
    requests: tuple[tuple[str, dict[str, Any]], ...]
    told: dict[str, Any]
    unsent: tuple[str, ...]
    calls: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Recording:
        expected = json.loads((folder / "expected.json").read_text())
        paths = sorted(folder.glob("*-*.json"), key=lambda path: int(path.stem.partition("-")[0]))
        return cls(
            name=f"{folder.parent.name}/{folder.name}",
            requests=tuple(
                (path.stem.partition("-")[2], json.loads(path.read_text())) for path in paths
            ),
            told=expected["told"],
            unsent=tuple(expected["unsent"]),
            calls=tuple(expected["calls"]),
        )

    @property
    def counted(self) -> tuple[dict[str, Any], ...]:
        """What has counts of tokens: the calls, or what the program counted without calls."""
        return self.calls or (self.told,)

    @property
    def first_chunks_ms(self) -> list[int]:
        """How long the server waited before the first chunk of each stream, if it was exported."""
        if "first_chunk_ms" in self.unsent:
            return []
        return [call["first_chunk_ms"] for call in self.calls if "first_chunk_ms" in call]

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(call["error"] for call in self.calls if "error" in call)

    @property
    def words(self) -> dict[str, str]:
        """Words of the contents that were exported."""
        wanted = expected_words({"calls": self.calls, "told": self.told})
        return {key: word for key, word in wanted.items() if key not in (*self.unsent, "error")}

    def sent(self, signal: str) -> list[dict[str, Any]]:
        return [request for name, request in self.requests if name == signal]


def expected_words(expected: dict[str, Any]) -> dict[str, str]:
    """A word of each text that the program or the server wrote."""
    calls = expected["calls"]
    written = {
        "question": True,
        "answer": not calls or any("answer" in call for call in calls),
        "arguments": any("arguments" in call for call in calls),
        "result": any("arguments" in call for call in calls),
        "error": any("error" in call for call in calls),
    }
    return {key: word for key, word in WORDS.items() if written[key]}


RECORDINGS = tuple(Recording.read(path.parent) for path in sorted(DATA.glob("*/*/expected.json")))
