"""What the redaction hook and the rules make of rows, before these are prepared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from observatory_storage.errors import Rejected, ValidationError
from observatory_storage.rows import PART, Rules, as_mapping
from observatory_storage.tables import TableDefinition
from observatory_storage.writers.buffer import Buffer
from observatory_storage.writers.config import Redact
from observatory_storage.writers.stats import Recorder

__all__ = ["NOTHING_COMPUTED", "RowChanges"]

NOTHING_COMPUTED: Final[Mapping[str, Any]] = {}
# The indexes of some rows in the caller's list, the rows, and the same as they are to be written.
_Part = tuple[Sequence[int], list[Any], list[Any]]


class RowChanges:
    """Redacts rows, applies the rules to them, and counts those that either of them drops.

    Args:
        redact: the redaction hook, if there is one.
        rules: the rules of the pool, if there are any.
        recorder: the statistics of the writer.
        buffer: the buffer of the writer, whose lock guards the statistics.

    Attributes:
        are_possible: whether there is a hook or a rule, so that rows have to be mappings.
    """

    def __init__(
        self, redact: Redact | None, rules: Rules | None, recorder: Recorder, buffer: Buffer
    ) -> None:
        self.are_possible = redact is not None or rules is not None
        self._redact = redact
        self._rules = rules
        self._recorder = recorder
        self._buffer = buffer

    def changed(
        self, table: TableDefinition, row: Any, computed: Mapping[str, Any] = NOTHING_COMPUTED
    ) -> Mapping[str, Any] | None:
        """The row as the redaction hook and the rules leave it; None if one of them drops it.

        Args:
            table: its table.
            row: the row.
            computed: columns that the rules compute again, unless the hook has changed them.
        """
        given = as_mapping(row, table.model)
        if self._redact is not None:
            redacted = self._redact(given)
            if redacted is None:
                with self._buffer.lock:
                    self._recorder.counts.redacted += 1
                return None
            given = as_mapping(redacted, table.model)
        rules = self._rules
        if rules is None:
            return given
        kept = rules.applied(
            table,
            {
                column: value
                for column, value in given.items()
                if column not in computed or value != computed[column]
            },
        )
        if kept is None:
            with self._buffer.lock:
                self._recorder.counts.dropped_by_rules += 1
        return kept

    def parts(
        self, table: TableDefinition, rows: Iterable[Any], rejected: list[Rejected]
    ) -> Iterator[_Part]:
        """The rows in parts, without those that are dropped.

        Args:
            table: their table.
            rows: the rows.
            rejected: gets the rows that cannot be changed.
        """
        if not self.are_possible and isinstance(rows, list):
            for start in range(0, len(rows), PART):
                part = rows[start : start + PART]
                yield range(start, start + len(part)), part, part
            return
        indexes: list[int] = []
        part, kept = [], []
        try:
            for index, row in enumerate(rows):
                given = row
                if self.are_possible:
                    try:
                        given = self.changed(table, row)
                    except ValidationError as error:
                        rejected.append(Rejected(index, row, error))
                        continue
                    if given is None:
                        continue
                indexes.append(index)
                part.append(row)
                kept.append(given)
                if len(part) == PART:
                    full = indexes, part, kept
                    indexes, part, kept = [], [], []
                    yield full
        finally:  # also if the caller's iterator raises: keep the rows before the error
            if part:
                yield indexes, part, kept
