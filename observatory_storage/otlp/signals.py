"""The three signals of OTLP, and how to recognise the signal of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import logs, metrics, traces

__all__ = [
    "LOG_SIGNAL",
    "METRIC_SIGNAL",
    "SIGNALS",
    "TRACE_SIGNAL",
    "Signal",
    "SignalName",
    "signal_of_request",
]

SignalName = Literal["traces", "metrics", "logs"]


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of OpenTelemetry.

    Attributes:
        name: "traces", "metrics" or "logs".
        keys: the names of its lists of resources, scopes and items in OTLP/JSON.
        message: the full name of its request in protobuf.
    """

    name: SignalName
    keys: tuple[str, str, str]
    message: str


def _signal(name: SignalName, keys: tuple[str, str, str]) -> Signal:
    package = name.removesuffix("s") if name == "traces" else name
    title = package.capitalize()
    return Signal(
        name, keys, f"opentelemetry.proto.collector.{package}.v1.Export{title}ServiceRequest"
    )


TRACE_SIGNAL: Final = _signal("traces", traces.KEYS)
METRIC_SIGNAL: Final = _signal("metrics", metrics.KEYS)
LOG_SIGNAL: Final = _signal("logs", logs.KEYS)
SIGNALS: Final = (TRACE_SIGNAL, METRIC_SIGNAL, LOG_SIGNAL)


def signal_of_request(request: Mapping[str, Any]) -> Signal | None:
    """The signal of a parsed request, or None if the request is empty.

    Raises:
        ValidationError: it carries no known signal, or several.
    """
    found = [signal for signal in SIGNALS if request.get(signal.keys[0]) is not None]
    if len(found) > 1:
        names = " and ".join(signal.name for signal in found)
        raise ValidationError("payload", sorted(request), f"must carry one signal, not {names}")
    if found:
        return found[0]
    if request and not any(signal.keys[0] in request for signal in SIGNALS):
        known = ", ".join(signal.keys[0] for signal in SIGNALS)
        raise ValidationError("payload", sorted(map(str, request)), f"must have one of {known}")
    return None
