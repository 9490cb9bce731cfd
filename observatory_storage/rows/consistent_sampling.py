"""How many spans a sampled span stands for, by OpenTelemetry's consistent probability sampling.

A sampler keeps a trace if its random number is at least a threshold. The random number is the last
56 bits of the trace id, so all samplers that have one threshold keep the same traces, and a sampler
after another one merely raises the threshold. See
https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

__all__ = [
    "ALL",
    "MAX_HEAD_WEIGHT",
    "MAX_WEIGHT",
    "NOT_SAMPLED",
    "HeadSampling",
    "head_sampling",
    "head_weights",
    "randomness_of",
    "sample_weight",
    "threshold_of",
    "weight_of",
]

ALL: Final = 2**56
"""One more than the greatest random number. As a threshold, it keeps nothing."""
MAX_WEIGHT: Final = 2**31 - 1
MAX_HEAD_WEIGHT: Final = 10_000
"""The greatest weight that a trace state may tell: it is a header that any caller can send."""
_DIGITS: Final = 14  # of 56 bits
_MARK: Final = b"ot="
_MEMBER: Final = re.compile(rb'"trace_state":"(?:[^"]*[,\s])?ot=([^,"]*)')
_THRESHOLD: Final = re.compile(rb"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)")
_RANDOMNESS: Final = re.compile(rb"(?:^|;)rv:([0-9a-f]{14})(?:;|$)")


class HeadSampling(NamedTuple):
    """What the trace state of a span says of a sampler that the span has passed.

    Attributes:
        threshold: the threshold of the sampler; 0 if there was none.
        randomness: the random number of the trace; None if it is in the trace id.
    """

    threshold: int = 0
    randomness: int | None = None


NOT_SAMPLED: Final = HeadSampling()


def head_sampling(otlp: bytes | None) -> HeadSampling:
    """Read the trace state in the column `otlp` of a prepared span."""
    if otlp is None or _MARK not in otlp:
        return NOT_SAMPLED
    member = _MEMBER.search(otlp)
    if member is None:
        return NOT_SAMPLED
    threshold, randomness = _THRESHOLD.search(member[1]), _RANDOMNESS.search(member[1])
    return HeadSampling(
        0 if threshold is None else int(threshold[1].ljust(_DIGITS, b"0"), 16),
        None if randomness is None else int(randomness[1], 16),
    )


def sample_weight(otlp: bytes | None, trace_number: int, threshold: int = 0) -> int | None:
    """How many spans a span stands for; None for itself alone.

    What the trace state tells is limited to `MAX_HEAD_WEIGHT`.

    Args:
        otlp: the column of that name of the prepared span, whose trace state may tell a threshold.
        trace_number: the id of its trace as an integer.
        threshold: another threshold that the trace has passed.
    """
    head = head_sampling(otlp)
    randomness = head.randomness
    if randomness is None:
        randomness = randomness_of(trace_number)
    # No sampler can have kept a random number below its threshold: then the state tells nothing.
    told = min(head.threshold, _MAX_HEAD_THRESHOLD) if head.threshold <= randomness else 0
    return weight_of(max(threshold, told), randomness)


def head_weights(
    otlp: Sequence[bytes | None], trace_ids: Sequence[UUID]
) -> list[int | None] | None:
    """The weights of many spans by their trace states; None if none of these tells a threshold."""
    if not any(_MARK in each for each in otlp if each is not None):
        return None
    return [
        sample_weight(each, trace_id.int) for each, trace_id in zip(otlp, trace_ids, strict=True)
    ]


def randomness_of(trace_number: int) -> int:
    """The random number in a trace id, which is given as an integer."""
    return trace_number & (ALL - 1)


def threshold_of(share: float) -> int:
    """The threshold that keeps a share of all traces, from 0 to 1."""
    return ALL - round(share * ALL)


_MAX_HEAD_THRESHOLD: Final = threshold_of(1 / MAX_HEAD_WEIGHT)


def weight_of(threshold: int, randomness: int) -> int | None:
    """How many traces a trace stands for that this threshold has kept; None for itself alone.

    The weight is a whole number, so that weighted counts are counts. A share of 0.3 gives two of
    three traces the weight 3, and one the weight 4: the weights of all random numbers that are kept
    add up to the number of all random numbers.
    """
    if not threshold:
        return None
    kept = ALL - threshold
    weight, rest = divmod(ALL, kept)
    weight += max(randomness - threshold, 0) < rest
    return None if weight == 1 else min(weight, MAX_WEIGHT)
