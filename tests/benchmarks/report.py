"""Saves a run: the numbers as JSON, charts, and tables in the guide."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.chart import Bar, Panel, bars
from tests.benchmarks.growth import Growth
from tests.benchmarks.guide import filled, origin, rounded
from tests.benchmarks.limit import LIMIT
from tests.benchmarks.measure import Result
from tests.benchmarks.ours import STEPS
from tests.benchmarks.output import Shown
from tests.benchmarks.peers import PEERS

__all__ = ["save"]

_GROWTH: Final = "growth"
_GUIDE: Final = "copy.md"
_STEPS: Final = {step.name for step in STEPS}
_PEERS: Final = {peer.name for peer in PEERS}


def save(
    folder: Path,
    head: dict[str, Any],
    results: dict[str, list[Any]],
    tables: dict[str, list[Shown]],
) -> list[Path]:
    """Write the results as JSON and charts, and their tables into the guide beside the folder.

    The results of the growing table are a report of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, sections, panels in (
        ("write", [one for one in results if one != _GROWTH], _techniques(results)),
        (_GROWTH, [one for one in results if one == _GROWTH], _growth(results)),
    ):
        if not sections:
            continue
        report = {**head, **{one: [asdict(row) for row in results[one]] for one in sections}}
        written.append(folder / f"{name}.json")
        written[-1].write_text(json.dumps(rounded(report), indent=1) + "\n")
        if panels:
            written.append(folder / f"{name}.svg")
            written[-1].write_text(bars(panels))
        guide = folder.parent / _GUIDE
        for section in sections:
            text = "\n".join(table.as_markdown() for table in tables[section])
            if filled(guide, section, f"{origin(head)}\n\n{text}"):
                written.append(guide)
    return sorted(set(written))


def _techniques(results: dict[str, list[Any]]) -> list[Panel]:
    compared: list[Result] = results.get("techniques", [])
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
                if one.technique not in _STEPS
            ],
        )
        for load, found in groupby(compared, key=lambda one: one.workload)
    ]


def _kind(technique: str) -> str:
    if technique == LIMIT.name:
        return "reference"
    return "plain" if technique in _PEERS else "ours"


def _growth(results: dict[str, list[Any]]) -> list[Panel]:
    stretches: list[Growth] = results.get(_GROWTH, [])
    if not stretches:
        return []
    first = stretches[0].rows_per_second
    rows = [
        Bar(
            f"{one.before:,} spans there",
            one.rows_per_second,
            f"{one.rows_per_second:,.0f}   {one.rows_per_second / first:.2f}",
            "ours",
        )
        for one in stretches
    ]
    return [
        Panel("wide LLM spans: rows per second as the table grows, and part of the first", rows)
    ]
