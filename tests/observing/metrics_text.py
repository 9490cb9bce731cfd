"""Reads what Prometheus would read."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes | str) -> Samples:
    """The samples of an exposition, by name and labels."""
    decoded = text if isinstance(text, str) else text.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(decoded)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    """The value of a sample; None if there is none."""
    return found.get((name, frozenset(labels.items())))
