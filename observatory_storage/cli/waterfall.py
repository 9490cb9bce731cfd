"""One trace as a waterfall: what happened inside what, when, for how long and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from observatory_storage.cli.text import clean, dollars, duration, moment, tokens
from observatory_storage.cli.tree import KEPT_LEVELS, Node, arrange, end_of, start_of
from observatory_storage.models import Trace, TraceSpan

__all__ = ["DEFAULT_ROWS", "Waterfall"]

DEFAULT_ROWS = 200
_NUMBERS = (("DURATION", 9), ("TOKENS", 7), ("COST", 9))
_NARROW_BAR, _WIDE_BAR = 12, 40
_NARROW = 66  # columns


@dataclass(frozen=True, slots=True)
class _Marks:
    bar: str
    failed: str
    branch: str
    last: str
    line: str
    more: str
    separator: str


_UNICODE = _Marks("━", "✗", "├ ", "└ ", "│ ", "…", " · ")
_ASCII = _Marks("=", "x", "|-", "`-", "| ", "...", " - ")


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Renders a trace and its spans at any width. At most `rows` spans are shown."""

    trace: Trace
    spans: Sequence[TraceSpan]
    rows: int = DEFAULT_ROWS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = _ASCII if options.ascii_only else _UNICODE
        yield from _heading(self.trace, self.spans, marks)
        if not self.spans:
            yield Text("no spans", style="dim")
            return
        begin = min(map(start_of, self.spans))
        end = max(end_of(span) or start_of(span) for span in self.spans)
        layout = _Layout(marks, options.max_width, begin, max(end - begin, 1))
        yield layout.head()
        failed = sum(span.status == "error" for span in self.spans)
        for node in islice(arrange(self.spans), self.rows):
            yield from layout.lines(node)
            failed -= node.span.status == "error"
        rest = len(self.spans) - self.rows
        if rest > 0:
            note = f"{rest:,} more spans" + (f", {failed:,} of them failed" if failed else "")
            yield Text(f"{marks.more} {note}: a higher --limit shows them", style="yellow")


def _heading(trace: Trace, spans: Sequence[TraceSpan], marks: _Marks) -> Iterator[Text]:
    failed = trace.error_count or 0
    nanoseconds = None if trace.duration_us is None else trace.duration_us * 1000
    facts = [
        moment(trace.start_time) + " UTC",
        duration(nanoseconds),
        f"{len(spans):,} span" + ("" if len(spans) == 1 else "s"),
        f"{failed:,} failed" if failed else "",
        f"{tokens(trace.total_tokens)} tokens" if trace.total_tokens is not None else "",
        dollars(trace.total_cost_usd),
    ]
    name = trace.root_span_name or "(no span)"
    title = Text(clean(name), style="bold")
    title.append(f"  {clean(trace.service_name)}", style="cyan")
    title.append(f"  {clean(trace.trace_id)}", style="dim")
    yield title
    yield Text(marks.separator.join(fact for fact in facts if fact))
    if spans and all(span.parent_span_id is not None for span in spans):
        yield Text("no root span: it has not been stored, or not yet", style="yellow")


class _Layout:
    """The widths of the columns, and the lines of a span in them."""

    def __init__(self, marks: _Marks, width: int, begin: int, length: int) -> None:
        self._marks = marks
        self._begin = begin
        self._length = length
        # Where there is no room for all of it, the names matter more than the prices.
        self._numbers = _NUMBERS if width >= _NARROW else _NUMBERS[:1]
        room = max(width - sum(size + 1 for _, size in self._numbers), 2 * _NARROW_BAR)
        self._bar = min(max(room // 3, _NARROW_BAR), _WIDE_BAR)
        self._name = room - self._bar - 1
        self._levels = min(KEPT_LEVELS, self._name // 4)

    def head(self) -> Text:
        """The line of titles, with the scale over the bars."""
        until = duration(self._length)
        scale = f"0{until:>{self._bar - 1}}"
        numbers = "".join(f" {title:>{size}}" for title, size in self._numbers)
        return Text(f"{'SPAN':<{self._name}} {scale}{numbers}", style="bold", no_wrap=True)

    def lines(self, node: Node) -> Iterator[Text]:
        """A span's line, and a second one with the message of its error."""
        span = node.span
        failed = span.status == "error"
        line = Text(no_wrap=True, overflow="crop")
        self._append_name(line, node)
        line.append(" ")
        line.append(self._bar_of(span), style="red" if failed else _bar_style(span))
        began, end = start_of(span), end_of(span)
        cells = (
            duration(None if end is None else end - began),
            tokens(span.total_tokens),
            dollars(span.total_cost_usd),
        )
        for (_, size), cell in zip(self._numbers, cells, strict=False):
            line.append(f" {cell:>{size}}")
        line.rstrip()
        yield line
        if failed and span.status_message:
            indent = " " * (cell_len(self._indent(node)) + 2)
            yield Text(
                indent + clean(span.status_message), style="red", no_wrap=True, overflow="ellipsis"
            )

    def _append_name(self, line: Text, node: Node) -> None:
        span = node.span
        indent = self._indent(node)
        name = clean(span.name)
        if span.status == "error":
            name = f"{self._marks.failed} {name}"
        service = f" {clean(span.service_name)}" if node.service_changes else ""
        note = f" ({node.note})" if node.note else ""
        room = self._name - cell_len(indent)
        # The name is what one looks for; the service and the note take what it leaves.
        name = self._cut(name, room)
        service = self._cut(service, room - cell_len(name))
        note = self._cut(note, room - cell_len(name) - cell_len(service))
        line.append(indent, style="dim")
        line.append(name, style="bold red" if span.status == "error" else "")
        line.append(service, style="cyan")
        line.append(note, style="yellow")
        line.append(" " * (room - cell_len(name) - cell_len(service) - cell_len(note)))

    def _cut(self, text: str, room: int) -> str:
        if cell_len(text) <= room:
            return text
        more = self._marks.more
        return set_cell_size(text, room - len(more)) + more if room > len(more) + 2 else ""

    def _indent(self, node: Node) -> str:
        if node.depth == 0:
            return ""
        marks = self._marks
        shown = node.last[-self._levels :]
        lines = "".join("  " if last else marks.line for last in shown[:-1])
        # Deeper spans stay where the deepest drawn level is, and say how deep they are.
        deeper = f"({node.depth}) " if node.depth > self._levels else ""
        return lines + (marks.last if shown[-1] else marks.branch) + deeper

    def _bar_of(self, span: TraceSpan) -> str:
        start = start_of(span) - self._begin
        end = end_of(span)
        until = self._length if end is None else end - self._begin
        left = min(start * self._bar // self._length, self._bar - 1)
        right = max(-(-until * self._bar // self._length), left + 1)
        bar = self._marks.bar * (min(right, self._bar) - left)
        if end is None:  # still running, as far as anyone knows
            bar = bar[:-1] + ">"
        return " " * left + bar + " " * (self._bar - left - len(bar))


def _bar_style(span: TraceSpan) -> str:
    return "green" if span.model is not None else "blue"
