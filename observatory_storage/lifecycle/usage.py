"""The step that settles usage, in pieces."""

from __future__ import annotations

from typing import Final

from observatory_storage.lifecycle.run import Run
from observatory_storage.storing import SettledUsage, settle_usage
from observatory_storage.wording import counted

__all__ = ["settle_marked_usage"]

_TRACES_AT_A_TIME: Final = 1_000


def settle_marked_usage(run: Run) -> SettledUsage:
    """Settle the traces that writers have marked, until the deadline is over."""
    traces = changed = 0
    while not run.deadline.is_over:
        settled = settle_usage(run.source, _TRACES_AT_A_TIME)
        traces += settled.traces
        changed += settled.changed_traces
        if settled.traces < _TRACES_AT_A_TIME:
            break
        run.progress(f"settled the usage of {counted(traces, 'trace')}")
    return SettledUsage(traces, changed)
