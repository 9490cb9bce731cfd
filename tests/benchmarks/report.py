"""What a run leaves behind when asked to: the numbers as JSON, and charts of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.chart import Bar, Panel, bars
from tests.benchmarks.growth import Growth
from tests.benchmarks.limit import LIMIT
from tests.benchmarks.measure import Result
from tests.benchmarks.ours import STEPS
from tests.benchmarks.peers import PEERS

__all__ = ["save"]

_REFERENCES: Final = {LIMIT.name, *(step.name for step in STEPS)}
_PEERS: Final = {peer.name for peer in PEERS}


def save(folder: Path, head: dict[str, Any], results: dict[str, list[Any]]) -> list[Path]:
    """Write `write.json` and `write.svg`, and `growth.json` and `growth.svg` where that was run."""
    folder.mkdir(parents=True, exist_ok=True)
    growth = results.get("growth", [])
    others = {name: found for name, found in results.items() if name != "growth"}
    written = []
    for name, found, panels in (
        ("write", others, _techniques(results.get("techniques", []))),
        ("growth", {"growth": growth} if growth else {}, _growth(growth)),
    ):
        if found:
            report = {
                **head,
                **{section: [asdict(one) for one in rows] for section, rows in found.items()},
            }
            written.append(folder / f"{name}.json")
            written[-1].write_text(json.dumps(_rounded(report), indent=1) + "\n")
        if panels:
            written.append(folder / f"{name}.svg")
            written[-1].write_text(bars(panels))
    return written


def _techniques(results: Sequence[Result]) -> list[Panel]:
    return [
        Panel(
            f"{load}: rows per second, and part of the limit",
            [
                Bar(
                    one.technique,
                    one.rows_per_second,
                    f"{one.rows_per_second:,.0f}   {one.ratio:.2f}",
                    _kind(one.technique),
                )
                for one in found
            ],
        )
        for load, found in groupby(results, key=lambda one: one.workload)
    ]


def _kind(technique: str) -> str:
    if technique in _REFERENCES:
        return "reference"
    return "plain" if technique in _PEERS else "ours"


def _growth(results: Sequence[Growth]) -> list[Panel]:
    if not results:
        return []
    rows = [
        Bar(
            f"{one.before:,} spans there",
            one.rows_per_second,
            f"{one.rows_per_second:,.0f}   {one.rows_per_second / results[0].rows_per_second:.2f}",
            "ours",
        )
        for one in results
    ]
    return [
        Panel("wide LLM spans: rows per second as the table grows, and part of the first", rows)
    ]


def _rounded(value: Any) -> Any:
    """Four digits are more than a run can tell from another."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(one) for key, one in value.items()}
        case list():
            return [_rounded(one) for one in value]
        case _:
            return value
