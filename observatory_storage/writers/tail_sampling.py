"""The options of tail sampling, and the decision about a trace."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Final

from observatory_storage.errors import ValidationError
from observatory_storage.pricing import PriceTable
from observatory_storage.rows import Row
from observatory_storage.rows.consistent_sampling import (
    ALL,
    MAX_WEIGHT,
    NOT_SAMPLED,
    head_sampling,
    randomness_of,
    sample_weight,
    threshold_of,
)
from observatory_storage.rows.value_checks import Refused, cost
from observatory_storage.storing import counted_rows, with_costs
from observatory_storage.tables import SPANS

__all__ = ["DROP", "Decider", "TailSampling", "ends_local_root", "with_weights"]

DROP: Final = ALL
"""The decision to drop a trace. The other decisions are thresholds that the trace has passed."""
_KEEP: Final = 0
_MAX_INT64: Final = 2**63 - 1
_MAX_ROWS: Final = 2**31
_ENTRIES: Final = frozenset({"server", "consumer"})
_FLAGS: Final = re.compile(rb'"flags":(\d+)')
# Bits of the flags of an OTLP span: whether it is known if its parent is remote, and if it is.
_IS_KNOWN, _IS_REMOTE = 0x100, 0x200
_SPAN_ID, _START, _END, _STATUS, _PARENT, _KIND = SPANS.positions(
    "span_id", "start_time", "end_time", "status", "parent_span_id", "kind"
)
_OTLP, _TOKENS, _COST, _WEIGHT = SPANS.positions(
    "otlp", "total_tokens", "total_cost_usd", "sample_weight"
)
_times_of = itemgetter(_START, _END)


@dataclass(frozen=True, slots=True)
class TailSampling:
    """Which traces a `TraceWriter` keeps: errors, slow and expensive ones, and a share of the rest.

    The spans of a trace are held until its root has ended, or for ``decision_wait_secs``. Then the
    trace is kept or dropped as a whole, and so are spans of it that come later. A root is a span
    without a parent in this process.

    The share is chosen by the trace id, as OpenTelemetry's consistent probability sampling does it:
    processes with the same share keep the same traces. A span of such a trace is stored with a
    `sample_weight`, by which counts and sums are multiplied.

    Attributes:
        share: the share of all other traces that is kept, from 0 to 1.
        keep_errors: whether every trace with a span whose status is "error" is kept.
        slower_than_secs: every trace is kept that takes longer, in seconds, from the start of its
            first to the end of its last span; None if its duration does not matter.
        costlier_than_usd: every trace is kept that costs more, in US dollars; None if its cost does
            not matter. Costs that writers compute from prices count.
        decision_wait_secs: the seconds after which a trace is decided although its root has not
            ended, from the time when its first span was written.
        max_undecided_rows: the maximum number of rows that are held, events included. Beyond it,
            the oldest traces are decided early. They are also decided early if ``max_buffered`` is
            reached.
        max_undecided_bytes: the same in bytes, about as many as the rows need in memory.
        remembered_traces: the number of traces whose decision is remembered for late spans.

    Raises:
        ValidationError: a setting is out of range.
    """

    share: float = 0.1
    keep_errors: bool = True
    slower_than_secs: float | None = None
    costlier_than_usd: Decimal | float | None = None
    decision_wait_secs: float = 30.0
    max_undecided_rows: int = 50_000
    max_undecided_bytes: int = 2**26
    remembered_traces: int = 50_000

    def __post_init__(self) -> None:
        if not (_is_number(self.share) and 0 <= self.share <= 1):
            raise ValidationError("share", self.share, "must be a number from 0 to 1")
        if not isinstance(self.keep_errors, bool):
            raise ValidationError("keep_errors", self.keep_errors, "must be True or False")
        slow = self.slower_than_secs
        if slow is not None and not (_is_number(slow) and slow >= 0):
            raise ValidationError("slower_than_secs", slow, "must be a number, at least 0, or None")
        if self.costlier_than_usd is not None:
            object.__setattr__(self, "costlier_than_usd", _dollars(self.costlier_than_usd))
        wait = self.decision_wait_secs
        if not (_is_number(wait) and wait > 0):
            raise ValidationError("decision_wait_secs", wait, "must be a number above 0")
        for name, highest in (
            ("max_undecided_rows", _MAX_ROWS),
            ("max_undecided_bytes", _MAX_INT64),
            ("remembered_traces", _MAX_ROWS),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
                raise ValidationError(name, value, f"must be an integer from 1 to {highest}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _dollars(value: object) -> Decimal:
    try:
        amount = cost(value)
    except Refused:
        amount = Decimal(-1)
    if amount < 0:
        raise ValidationError("costlier_than_usd", value, "must be a number, at least 0, or None")
    return amount


class Decider:
    """Decides about traces.

    Args:
        sampling: the options.
        prices: returns the prices that are known, without asking the database.
    """

    def __init__(
        self, sampling: TailSampling, prices: Callable[[], tuple[bool, PriceTable | None]]
    ) -> None:
        self._sampling = sampling
        self._prices = prices
        self._threshold = threshold_of(sampling.share)

    def decide(self, trace_number: int, rows: Sequence[Row]) -> int:
        """Return the threshold that the trace has passed, or `DROP`.

        Args:
            trace_number: the id of the trace as an integer.
            rows: its rows so far.
        """
        spans = [row for row in rows if row.table == SPANS.name]
        if self._is_certain(spans):
            return _KEEP
        randomness = _randomness(trace_number, spans)
        return self._threshold if randomness >= self._threshold else DROP

    def _is_certain(self, spans: Sequence[Row]) -> bool:
        """Whether the trace is kept whatever its id is."""
        sampling = self._sampling
        if sampling.keep_errors and any(span.values[_STATUS] == "error" for span in spans):
            return True
        if sampling.slower_than_secs is not None and _seconds(spans) > sampling.slower_than_secs:
            return True
        return sampling.costlier_than_usd is not None and self._costs_more(
            spans, Decimal(sampling.costlier_than_usd)
        )

    def _costs_more(self, spans: Sequence[Row], than: Decimal) -> bool:
        # The last version of each span, as it will be stored.
        unique = list({(row.values[_SPAN_ID], row.values[_START]): row for row in spans}.values())
        if not any(row.values[_TOKENS] or row.values[_COST] for row in unique):
            return False
        are_read, table = self._prices()
        if not are_read and any(row.values[_TOKENS] and not row.values[_COST] for row in unique):
            # The first flush reads the prices. Until then, what is not known to be cheap is kept.
            return True
        counted = counted_rows(with_costs(unique, table))
        costs = [row.values[_COST] for row in counted]
        return sum((each for each in costs if each is not None), Decimal()) > than


def _seconds(spans: Sequence[Row]) -> float:
    """From the first start to the last end; 0 if none has ended."""
    times = [_times_of(span.values) for span in spans]
    ends = [end for _, end in times if end is not None]
    if not ends:
        return 0.0
    took: timedelta = max(ends) - min(start for start, _ in times)
    return took.total_seconds()


def _randomness(trace_number: int, spans: Sequence[Row]) -> int:
    for span in spans:
        given = head_sampling(span.values[_OTLP]).randomness
        if given is not None:
            return given
    return randomness_of(trace_number)


def ends_local_root(row: Row) -> bool:
    """Whether the row is an ended span without a parent in this process.

    The flags of OTLP tell whether a parent is remote. Without them, a span of a request or message
    is taken to be the first of its process.
    """
    values = row.values
    if row.table != SPANS.name or values[_END] is None:
        return False
    if values[_PARENT] is None:
        return True
    otlp = values[_OTLP]
    found = _FLAGS.search(otlp) if otlp is not None else None
    flags = 0 if found is None else int(found[1])
    return bool(flags & _IS_REMOTE) if flags & _IS_KNOWN else values[_KIND] in _ENTRIES


def with_weights(trace_number: int, rows: Sequence[Row], threshold: int) -> Sequence[Row]:
    """The rows of a trace that has passed a threshold, with the weights of its spans."""
    if not threshold:
        return rows
    usual = sample_weight(None, trace_number, threshold)
    weighted = []
    for row in rows:
        if row.table != SPANS.name:
            weighted.append(row)
            continue
        values, weight = row.values, usual
        otlp, given = values[_OTLP], values[_WEIGHT]
        if otlp is not None and head_sampling(otlp) is not NOT_SAMPLED:
            weight = sample_weight(otlp, trace_number, threshold)
        elif given is not None:
            # A sampler of the application has decided, not by the trace id.
            weight = min(given * (usual or 1), MAX_WEIGHT)
        weighted.append(row._replace(values=(*values[:_WEIGHT], weight, *values[_WEIGHT + 1 :])))
    return weighted
