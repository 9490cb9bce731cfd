"""One trace as a waterfall: the spans under their parents, with times, durations and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from observatory_storage.cli.formatting import clean, count, dollars, duration, moment
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories import SpanNode, SpanTree
from observatory_storage.wording import counted

__all__ = ["DEFAULT_ROWS", "Waterfall"]

DEFAULT_ROWS = 200
_NUMBERS = (("DURATION", 9), ("TOKENS", 7), ("COST", 9))
_NARROW_BAR, _WIDE_BAR = 12, 40
_NARROW = 66  # columns
# A chain of spans can be as long as the trace. Deeper levels are not indented further.
_INDENTED_LEVELS = 12


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
    """Renders a trace and the tree of its spans at any width. At most `rows` spans are shown."""

    trace: Trace
    tree: SpanTree
    rows: int = DEFAULT_ROWS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = _ASCII if options.ascii_only else _UNICODE
        yield from _heading(self.trace, self.tree, marks)
        if not self.tree.nodes:
            yield Text("no spans", style="dim")
            return
        rows = list(islice(_rows(self.tree), self.rows))
        layout = _Layout(marks, options.max_width, max(self.tree.duration_ns, 1), rows)
        yield layout.titles()
        for row in rows:
            yield from layout.lines(row)
        hidden = self.tree.nodes[self.rows :]
        if hidden:
            failed = sum(node.span.status == "error" for node in hidden)
            note = f"{len(hidden):,} more spans" + (
                f", {failed:,} of them failed" if failed else ""
            )
            yield Text(f"{marks.more} {note}: a higher --limit shows them", style="yellow")


@dataclass(frozen=True, slots=True)
class _Row:
    """A span and how it is drawn.

    Attributes:
        node: the span.
        is_last: for each level from the first below the root to the span's own, for at most
            `_INDENTED_LEVELS` levels, whether no sibling follows there.
        service_changes: the span belongs to another service than its parent.
    """

    node: SpanNode
    is_last: tuple[bool, ...]
    service_changes: bool


def _rows(tree: SpanTree) -> Iterator[_Row]:
    # An explicit stack: a chain of spans may be longer than Python's recursion limit.
    stack = [_Row(root, (), service_changes=True) for root in reversed(tree.roots)]
    while stack:
        row = stack.pop()
        yield row
        parent = row.node
        above = row.is_last[1 - _INDENTED_LEVELS :]
        for child in reversed(parent.children):
            changes = child.span.service_name != parent.span.service_name
            stack.append(_Row(child, (*above, child is parent.children[-1]), changes))


def _heading(trace: Trace, tree: SpanTree, marks: _Marks) -> Iterator[Text]:
    failed = trace.error_count or 0
    span_count = len(tree.nodes)
    facts = [
        moment(trace.start_time) + " UTC",
        duration(None if trace.duration_us is None else trace.duration_us * 1000),
        counted(span_count, "span"),
        f"{failed:,} failed" if failed else "",
        "" if trace.total_tokens is None else counted(trace.total_tokens, "token"),
        dollars(trace.total_cost_usd),
    ]
    title = Text(clean(trace.root_span_name or "(no span)"), style="bold")
    title.append(f"  {clean(trace.service_name)}", style="cyan")
    title.append(f"  {clean(trace.trace_id)}", style="dim")
    yield title
    yield Text(marks.separator.join(fact for fact in facts if fact))
    if tree.nodes and not tree.has_root:
        yield Text("the root span is not stored, or not yet", style="yellow")


class _Layout:
    """The widths of the columns, and the lines of a span in them."""

    def __init__(self, marks: _Marks, width: int, length_ns: int, rows: Sequence[_Row]) -> None:
        self._marks = marks
        self._length_ns = length_ns
        # Where there is no room for everything, the names matter more than the costs.
        self._numbers = _NUMBERS if width >= _NARROW else _NUMBERS[:1]
        room = max(width - sum(size + 1 for _, size in self._numbers), 2 * _NARROW_BAR)
        self._bar = min(max(room // 3, _NARROW_BAR), _WIDE_BAR)
        self._name = room - self._bar - 1
        self._levels = min(_INDENTED_LEVELS, self._name // 4)
        # Not wider than needed, since a pipe has no width.
        needed = max(cell_len(self._indent(row) + "".join(self._label(row))) for row in rows)
        self._name = min(self._name, max(needed, len("SPAN")))

    def titles(self) -> Text:
        """The line of titles, with the scale above the bars."""
        scale = f"0{duration(self._length_ns):>{self._bar - 1}}"
        numbers = "".join(f" {title:>{size}}" for title, size in self._numbers)
        return Text(f"{'SPAN':<{self._name}} {scale}{numbers}", style="bold", no_wrap=True)

    def lines(self, row: _Row) -> Iterator[Text]:
        """A span's line, and a second one with the message of its error."""
        node, span = row.node, row.node.span
        failed = span.status == "error"
        line = Text(no_wrap=True, overflow="crop")
        self._append_name(line, row)
        line.append(" ")
        line.append(self._bar_of(node), style="red" if failed else _bar_style(span))
        cells = (duration(node.duration_ns), count(span.total_tokens), dollars(span.total_cost_usd))
        for (_, size), cell in zip(self._numbers, cells, strict=False):
            line.append(f" {cell:>{size}}")
        line.rstrip()
        yield line
        if failed and span.status_message:
            indent = " " * (cell_len(self._indent(row)) + 2)
            message = indent + clean(span.status_message)
            yield Text(message, style="red", no_wrap=True, overflow="ellipsis")

    def _label(self, row: _Row) -> tuple[str, str, str]:
        """The name of the span, its service where that changes, and a note about its place."""
        span = row.node.span
        name = clean(span.name)
        if span.status == "error":
            name = f"{self._marks.failed} {name}"
        service = f" {clean(span.service_name)}" if row.service_changes else ""
        if row.node.is_orphan:
            return name, service, " (parent not stored)"
        return name, service, " (in a cycle)" if row.node.breaks_cycle else ""

    def _append_name(self, line: Text, row: _Row) -> None:
        indent = self._indent(row)
        name, service, note = self._label(row)
        room = self._name - cell_len(indent)
        # The name is what people look for; the service and the note take the room that it leaves.
        name = self._cut(name, room)
        service = self._cut(service, room - cell_len(name))
        note = self._cut(note, room - cell_len(name) - cell_len(service))
        line.append(indent, style="dim")
        line.append(name, style="bold red" if row.node.span.status == "error" else "")
        line.append(service, style="cyan")
        line.append(note, style="yellow")
        line.append(" " * (room - cell_len(name) - cell_len(service) - cell_len(note)))

    def _cut(self, text: str, room: int) -> str:
        if cell_len(text) <= room:
            return text
        more = self._marks.more
        return set_cell_size(text, room - len(more)) + more if room > len(more) + 2 else ""

    def _indent(self, row: _Row) -> str:
        depth = row.node.depth
        if depth == 0:
            return ""
        marks = self._marks
        shown = row.is_last[-self._levels :]
        lines = "".join("  " if last else marks.line for last in shown[:-1])
        # Deeper spans stay at the deepest indentation, and their depth is written out.
        deeper = f"({depth}) " if depth > self._levels else ""
        return lines + (marks.last if shown[-1] else marks.branch) + deeper

    def _bar_of(self, node: SpanNode) -> str:
        start, length = node.offset_ns, node.duration_ns
        end = self._length_ns if length is None else start + length
        left = min(start * self._bar // self._length_ns, self._bar - 1)
        right = max(-(-end * self._bar // self._length_ns), left + 1)
        bar = self._marks.bar * (min(right, self._bar) - left)
        if length is None:  # still running, as far as anyone knows
            bar = bar[:-1] + ">"
        return " " * left + bar + " " * (self._bar - left - len(bar))


def _bar_style(span: TraceSpan) -> str:
    return "green" if span.model is not None else "blue"
