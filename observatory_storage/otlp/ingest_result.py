"""The result of ingesting one OTLP request, and the response to its sender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from observatory_storage.errors import Rejected
from observatory_storage.otlp.response import Encoding, response
from observatory_storage.otlp.signals import SignalName
from observatory_storage.serialization import Result

__all__ = ["IngestResult"]

# How many errors a response tells. A request may have thousands, mostly of one kind.
_TOLD_ERRORS: Final = 5


@dataclass(frozen=True, slots=True)
class IngestResult(Result):
    """The result of ingesting one OTLP request.

    Each item of the request is accepted or rejected, unless a rule of the configuration drops it.

    Attributes:
        accepted: the number of spans, data points or log records that are stored.
        rejected: the items that are not stored, each as a `Rejected` with its position in the
            request, the item as it was in OTLP, and the error. A refused metric that has no data
            points counts as one item.
        repaired: the number of changes without which accepted items could not be stored: values
            with characters that are no Unicode or that PostgreSQL cannot store, each in every item
            that has it, and the parts that were dropped.
        duplicates: the number of accepted items whose key was stored before the request: items that
            were sent again. Of a log record or data point, what is stored stays. A span replaces
            the stored one, if it differs.
        signal: ``"traces"``, ``"metrics"`` or ``"logs"``.
        dropped: the links and exemplars that were left out of accepted items, each as a `Rejected`
            with the position of its item, the item, and the error, which names the part.
        dropped_by_rules: the number of items that rules of the configuration dropped. They are
            neither accepted nor rejected.
    """

    accepted: int
    rejected: list[Rejected] = field(default_factory=list)
    repaired: int = 0
    duplicates: int = 0
    signal: SignalName = "traces"
    dropped: list[Rejected] = field(default_factory=list)
    dropped_by_rules: int = 0

    def to_otlp(self, encoding: Encoding = "json") -> bytes:
        """The body of the response for the sender, as OTLP over HTTP and gRPC define it.

        If all items are stored as they were sent, the response is that of full success, which is
        ``{}`` in JSON and empty in protobuf. Otherwise it has a ``partialSuccess`` with the number
        of refused items and a message. A sender does not send refused items again.

        Args:
            encoding: ``"json"`` or ``"protobuf"``: the encoding of the request. Protobuf does not
                need the ``otel`` extra here.

        Raises:
            ValidationError: the encoding is another one.
        """
        return response(self.signal, encoding, len(self.rejected), self._message())

    def _message(self) -> str:
        parts = _told(self.rejected, "rejected") + _told(self.dropped, "dropped")
        changed = self.repaired - len(self.dropped)
        if changed:
            parts.append(f"repaired {changed} values with characters that cannot be stored")
        return "; ".join(parts)


def _told(faults: Sequence[Rejected], what: str) -> list[str]:
    told = [f"{what}: {fault.error}" for fault in faults[:_TOLD_ERRORS]]
    if len(faults) > _TOLD_ERRORS:
        told.append(f"{what}: {len(faults) - _TOLD_ERRORS} more")
    return told
