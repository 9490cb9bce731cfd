"""Saves a run: JSON, a chart, and tables in the guide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.chart import Bar, Panel, bars
from tests.benchmarks.guide import filled, origin, rounded
from tests.benchmarks.output import Shown
from tests.benchmarks.reading.timing import Times

__all__ = ["save"]

_NAME: Final = "read"
_GUIDE: Final = "reading.md"


def save(
    folder: Path,
    head: dict[str, Any],
    results: dict[str, list[Any]],
    tables: dict[str, list[Shown]],
) -> list[Path]:
    """Write the results, and their tables into the guide beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {**head, **{name: [asdict(row) for row in rows] for name, rows in results.items()}}
    written = [folder / f"{_NAME}.json"]
    written[0].write_text(json.dumps(rounded(report), indent=1) + "\n")
    if results.get("questions"):
        written.append(folder / f"{_NAME}.svg")
        written[-1].write_text(bars(_panels(results["questions"])))
    guide = folder.parent / _GUIDE
    for section in results:
        text = "\n".join(table.as_markdown() for table in tables[section])
        if filled(guide, section, f"{origin(head)} {_settings(head)}\n\n{text}"):
            written.append(guide)
    return sorted(set(written))


def _settings(head: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in head["settings"].items())
    return f"Settings: {shown}."


def _panels(times: Sequence[Times]) -> list[Panel]:
    return [
        Panel(
            title,
            [
                Bar(one.question, one.p50_ms, f"{one.p50_ms:,.1f} ms, p95 {one.p95_ms:,.1f}", kind)
                for one in times
                if one.paged is paged
            ],
        )
        for title, paged, kind in (
            ("a page, or a trace: median", True, "ours"),
            ("many rows are read for it: median", False, "plain"),
        )
        if any(one.paged is paged for one in times)
    ]
