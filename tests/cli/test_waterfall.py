"""The waterfall of traces that are not as they should be."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from observatory_storage.cli.waterfall import Waterfall
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories import SpanTree

START = datetime(2026, 7, 1, tzinfo=UTC)


def span(
    number: int, parent: int | None, start: float, ms: float | None, **fields: Any
) -> TraceSpan:
    begin = START + timedelta(milliseconds=start)
    given = {"name": f"s{number}", "service_name": "app", "status": "unset", **fields}
    return TraceSpan(
        span_id=f"{number:016x}",
        parent_span_id=None if parent is None else f"{parent:016x}",
        start_time=begin,
        start_ns=0,
        end_time=None if ms is None else begin + timedelta(milliseconds=ms),
        end_ns=0,
        **given,
    )


def shown(
    spans: list[TraceSpan], *, width: int = 80, rows: int = 200, encoding: str = "utf-8"
) -> str:
    trace = Trace(
        trace_id="ab" * 16, service_name="app", start_time=START, duration_us=1000, error_count=0
    )
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width).print(Waterfall(trace, SpanTree.of(spans), rows=rows))
    file.seek(0)
    return file.read()


def labels(spans: list[TraceSpan]) -> list[str]:
    """The first column of the lines of spans."""
    lines = shown(spans).splitlines()
    (titles,) = [index for index, line in enumerate(lines) if line.startswith("SPAN ")]
    width = lines[titles].index(" 0 ")
    return [line[:width].rstrip() for line in lines[titles + 1 :]]


def test_parents_come_before_children_and_siblings_by_start() -> None:
    spans = [span(3, 1, 20, 1), span(4, 2, 11, 1), span(2, 1, 10, 5), span(1, None, 0, 30)]
    assert labels(spans) == ["s1 app", "├ s2", "│ └ s4", "└ s3"]


def test_spans_without_their_parent_stand_on_top() -> None:
    spans = [span(1, 9, 0, 5), span(2, 1, 1, 2)]
    assert labels(spans) == ["s1 app (parent not stored)", "└ s2"]
    assert "the root span is not stored" in shown(spans)


def test_spans_of_a_cycle_are_shown_once() -> None:
    spans = [span(1, None, 0, 9), span(2, 3, 1, 1), span(3, 2, 2, 1), span(4, 4, 3, 1)]
    assert labels(spans) == ["s1 app", "s2 app (in a cycle)", "└ s3", "s4 app (in a cycle)"]


def test_the_waterfall_shows_the_tree_of_the_repository_where_services_share_a_span_id() -> None:
    spans = [
        span(1, None, 0, 100, service_name="client"),
        span(1, None, 10, 80, service_name="server"),
        span(2, 1, 20, 10, service_name="server"),
    ]
    child = SpanTree.of(spans).nodes[-1]
    assert child.span.name == "s2"
    assert labels(spans) == ["s1 client", "s1 server", "└ s2"]


def test_a_child_of_a_shared_id_belongs_to_the_span_it_began_in() -> None:
    spans = [
        span(1, None, 0, 100),
        span(2, 1, 10, 10, name="first"),
        span(2, 1, 50, 10, name="second"),
        span(3, 2, 55, 1, name="child"),
    ]
    assert labels(spans)[1:] == ["├ first", "└ second", "  └ child"]


def test_a_span_that_has_no_end_runs_to_the_end() -> None:
    line = shown([span(1, None, 0, 100), span(2, 1, 50, None)]).splitlines()[4]
    assert line.endswith("-")
    assert "━>" in line


def test_many_spans_are_cut_with_a_note() -> None:
    spans = [span(1, None, 0, 100)]
    spans += [span(n, 1, n / 100, 1, status="error") for n in range(2, 5002)]
    lines = shown(spans, rows=10).splitlines()
    assert len(lines) == 3 + 10 + 1
    assert lines[-1] == "… 4,991 more spans, 4,991 of them failed: a higher --limit shows them"


def test_a_long_chain_neither_overflows_nor_leaves_the_page() -> None:
    spans = [span(1, None, 0, 100)] + [span(n, n - 1, n / 100, 1) for n in range(2, 3002)]
    lines = shown(spans, rows=5000).splitlines()
    assert len(lines) == 3 + 3001
    assert max(map(cell_len, lines)) <= 80
    assert "(3000) s3001" in lines[-1]


@pytest.mark.parametrize("width", [20, 40, 65, 66, 80, 120, 400])
def test_any_width(width: int) -> None:
    spans = [span(1, None, 0, 100, name="日本語の名前" * 9)] + [
        span(n, n - 1, n, 1) for n in range(2, 30)
    ]
    lines = shown(spans, width=width).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_control_characters_of_names_are_replaced() -> None:
    evil = "a\x1b[2Jb\r\nc\x9b31m[red]d"
    text = shown([span(1, None, 0, 1, name=evil, status="error", status_message=evil)])
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "a\ufffd[2Jb  c\ufffd31m[red]d" in text


def test_ascii_where_the_terminal_knows_no_more() -> None:
    spans = [span(1, None, 0, 100), span(2, 1, 50, 10, status="error")]
    assert shown(spans, encoding="ascii").isascii()


def test_nothing_stored() -> None:
    assert shown([]).splitlines()[-1] == "no spans"
