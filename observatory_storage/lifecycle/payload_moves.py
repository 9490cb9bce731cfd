"""Moves the values of stored rows where the configuration says, partition by partition."""

from __future__ import annotations

from dataclasses import dataclass

from observatory_storage.lifecycle.moved_partitions import (
    UnmovedPartition,
    note_end,
    note_position,
    unmoved,
)
from observatory_storage.lifecycle.payload_conversion import (
    Conversion,
    conversion_to,
    convert_range,
)
from observatory_storage.lifecycle.run import Run
from observatory_storage.serialization import Result
from observatory_storage.wording import counted

__all__ = ["MovedPayloads", "convert_stored_payloads"]


@dataclass(frozen=True, slots=True)
class MovedPayloads(Result):
    """The result of `convert_stored_payloads`.

    Attributes:
        partitions: the closed partitions whose rows now stand as ``payloads.mode`` says.
        rows: the spans, events and log records that were looked at closely, since their values may
            have to move.
        changed_rows: those of them whose values were moved.
        failed_rows: those whose payload frames are damaged or missing. They stay as they are, and
            are not tried again.
        is_complete: whether nothing is left to do.
    """

    partitions: tuple[str, ...] = ()
    rows: int = 0
    changed_rows: int = 0
    failed_rows: int = 0
    is_complete: bool = True


def convert_stored_payloads(run: Run) -> MovedPayloads:
    """Move the large values of stored rows where ``payloads.mode`` says, if it is asked for.

    It does nothing unless ``payloads.convert_stored`` is set. Closed partitions are read, the
    newest first. Those that are done are noted in ``partition_states`` and not read again before
    many late rows have come or the settings change. When the deadline is over, the next run goes on
    with the next trace. Readers and writers do not wait. See `convert_payloads`.

    Raises:
        ConfigError: Zstandard is not installed.
        StorageError: PostgreSQL could not be used.
    """
    settings = run.source.config.payloads
    if not settings.convert_stored:
        return MovedPayloads()
    work = _Work(run, conversion_to(run.source, settings.mode))
    waiting = unmoved(run.source, work.conversion.rule)
    while waiting:
        if run.deadline.is_over or not work.is_done(waiting[0]):
            return work.result(is_complete=False)
        # The end of one may be that of its twin, too.
        waiting = unmoved(run.source, work.conversion.rule)
    return work.result(is_complete=True)


class _Work:
    """What a run has done so far."""

    def __init__(self, run: Run, conversion: Conversion) -> None:
        self.conversion = conversion
        self._run = run
        self._partitions: list[str] = []
        self._rows = self._changed = self._failed = 0

    def is_done(self, partition: UnmovedPartition) -> bool:
        """Convert the rows of a partition; whether that came to its end."""
        run, rule = self._run, self.conversion.rule
        moved_at = None
        if self.conversion.may_be_needed(partition.of, partition.held):
            noted = partition.after
            for counts, after in convert_range(
                run.source, self.conversion, partition.held, partition.after, [partition.of]
            ):
                self._rows += counts.rows
                self._changed += counts.changed
                self._failed += counts.failed
                moved_at = run.now if counts.changed else moved_at
                if after != noted:
                    note_position(run.source, partition, rule, after, moved_at)
                    noted = after
                    run.progress(
                        f"moved values of {counted(self._changed, 'row')}, in {partition.name}"
                    )
                if run.deadline.is_over:
                    return False
        note_end(run.source, partition, rule, moved_at)
        self._partitions.append(partition.name)
        return True

    def result(self, *, is_complete: bool) -> MovedPayloads:
        return MovedPayloads(
            tuple(self._partitions), self._rows, self._changed, self._failed, is_complete
        )
