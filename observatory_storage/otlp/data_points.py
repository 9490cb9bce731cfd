"""Converts data points of OTLP to rows of `metric_data_points`, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import any_value, key_values, plain_map, plain_value
from observatory_storage.otlp.message_types import present
from observatory_storage.otlp.numbers import (
    count_of,
    double_of,
    json_double,
    json_double_of,
    keep_double,
    take_count,
    take_double,
)

__all__ = ["point_of", "point_row"]

_SIDES: Final = ("positive", "negative")


def point_row(point: Any, kind: str, dropped: list[ValidationError]) -> dict[str, Any]:
    """The row of a data point, without its ``metric_id``.

    Args:
        kind: the field of OTLP's Metric that contains the point: gauge, sum, histogram,
            exponential_histogram or summary.
        dropped: gets the errors of exemplars that are not valid.

    Raises:
        ValidationError: the data point is invalid.
    """
    otlp: dict[str, Any] = {}
    attributes, note = plain_map(point.attributes, "attributes")
    if note is not None:
        otlp["attributes"] = note
    start = point.start_time_unix_nano
    started, start_ns = protojson.moment(start) if start else (None, 0)
    if not point.time_unix_nano:
        raise ValidationError("timeUnixNano", point.time_unix_nano, "is required")
    timestamp, time_ns = protojson.moment(point.time_unix_nano)
    # The table has no columns for nanoseconds, since the key of a point would need them too.
    if start_ns:
        otlp["start_ns"] = start_ns
    if time_ns:
        otlp["time_ns"] = time_ns
    # This distinguishes points that have the same attributes, start and microsecond.
    origin = otlp.copy() if otlp else None
    if point.flags:
        otlp["flags"] = point.flags
    row: dict[str, Any] = {
        "start_timestamp": started,
        "timestamp": timestamp,
        "attributes": attributes,
    }
    if origin is not None:
        row["id"] = ids.data_point_id(attributes=attributes, start_timestamp=started, origin=origin)
    if kind in ("gauge", "sum"):
        _take_number(point, row, otlp)
    else:
        take_count(point.count, row, "count", otlp)
        if kind == "summary":
            take_double(point.sum, "sum", row, otlp)
            row["quantiles"] = _quantiles(point.quantile_values, otlp)
        else:
            take_double(present(point, "sum"), "sum", row, otlp)
            # Of no values, senders give the least and the greatest as they initialise them.
            take = take_double if point.count else keep_double
            for name in ("min", "max"):
                take(present(point, name), name, row, otlp)
            buckets = _buckets if kind == "histogram" else _exponential_buckets
            row["buckets"] = buckets(point, otlp)
    if kind != "summary" and point.exemplars:
        row["exemplars"] = _exemplars(point.exemplars, otlp, dropped)
    row["otlp"] = otlp or None
    return row


def _take_number(point: Any, row: dict[str, Any], otlp: dict[str, Any]) -> None:
    is_struct = isinstance(point, Struct)  # one look for both fields, unlike with `present`
    number = point.as_int if is_struct else present(point, "as_int")
    value = point.as_double if is_struct else present(point, "as_double")
    if number is None:
        if type(value) is float and math.isfinite(value):
            row["value"] = value
        else:
            take_double(value, "value", row, otlp, "asDouble")
        return
    if value is not None:
        raise ValidationError("asInt", number, "must not stand beside asDouble")
    # The column is a double, which rounds integers above 2**53. The note has the exact integer.
    row["value"] = float(number)
    otlp["as_int"] = number


def _buckets(point: Any, otlp: dict[str, Any]) -> dict[str, Any]:
    bounds: list[float | str] = []
    notes: dict[str, Any] = {}
    for index, bound in enumerate(point.explicit_bounds):
        plain, note = json_double(bound, f"explicitBounds[{index}]")
        bounds.append(plain)
        if note:
            notes[str(index)] = note
    if notes:
        otlp["buckets"] = {"bounds": notes}
    return {"bounds": bounds, "counts": list(point.bucket_counts)}


def _exponential_buckets(point: Any, otlp: dict[str, Any]) -> dict[str, Any]:
    threshold, note = json_double(point.zero_threshold, "zeroThreshold")
    if note:
        otlp["buckets"] = {"zero_threshold": note}
    buckets: dict[str, Any] = {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": threshold,
    }
    for side in _SIDES:
        given = present(point, side)
        if given is not None:
            buckets[side] = {"offset": given.offset, "counts": list(given.bucket_counts)}
    return buckets


def _quantiles(given: Iterable[Any], otlp: dict[str, Any]) -> list[dict[str, Any]]:
    quantiles: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for index, entry in enumerate(given):
        plain: dict[str, Any] = {}
        noted: dict[str, Any] = {}
        for key in ("quantile", "value"):
            field = f"quantileValues[{index}].{key}"
            plain[key], note = json_double(getattr(entry, key), field)
            if note:
                noted[key] = note
        quantiles.append(plain)
        if noted:
            notes[str(index)] = noted
    if notes:
        otlp["quantiles"] = notes
    return quantiles


def _exemplars(
    given: Iterable[Any], otlp: dict[str, Any], dropped: list[ValidationError]
) -> list[dict[str, Any]]:
    exemplars: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for index, entry in enumerate(given):
        try:
            exemplar, noted = _exemplar(entry, f"exemplars[{index}]")
        except ValidationError as error:
            dropped.append(error)
            continue
        if noted:
            notes[str(len(exemplars))] = noted
        exemplars.append(exemplar)
    if notes:
        otlp["exemplars"] = notes
    return exemplars


def _exemplar(given: Any, field: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if isinstance(given, ValidationError):  # found by the reader
        raise given
    noted: dict[str, Any] = {}
    attributes, note = plain_map(given.filtered_attributes, f"{field}.filteredAttributes")
    if note is not None:
        noted["attributes"] = note
    exemplar: dict[str, Any] = {"time_unix_nano": given.time_unix_nano, "attributes": attributes}
    # The number is stored like the value of an attribute, so integers differ from doubles.
    members = {
        kind: number
        for kind, name in (("intValue", "as_int"), ("doubleValue", "as_double"))
        if (number := present(given, name)) is not None
    }
    if members:
        exemplar["value"], note = plain_value(members, f"{field}.value")
        if note is not None:
            noted["value"] = note
    for key, value, name in (
        ("span_id", given.span_id, "spanId"),
        ("trace_id", given.trace_id, "traceId"),
    ):
        identifier = protojson.identifier(value, f"{field}.{name}")
        if identifier:
            exemplar[key] = identifier
    return exemplar, noted


def point_of(row: Mapping[str, Any], metric_type: str) -> dict[str, Any]:
    """The OTLP/JSON of a data point, from a row with all columns and the type of its metric."""
    otlp = row["otlp"] or {}
    point: dict[str, Any] = {}
    pairs = key_values(row["attributes"], otlp.get("attributes"))
    if pairs:
        point["attributes"] = pairs
    start = protojson.nanoseconds(row["start_timestamp"], otlp.get("start_ns", 0))
    if row["start_timestamp"] is not None and start:
        point["startTimeUnixNano"] = str(start)
    point["timeUnixNano"] = str(protojson.nanoseconds(row["timestamp"], otlp.get("time_ns", 0)))
    if metric_type in ("gauge", "counter", "updowncounter"):
        if "as_int" in otlp:
            point["asInt"] = str(otlp["as_int"])
        else:
            _add(point, "asDouble", double_of(row, "value"))
    else:
        point["count"] = count_of(row, "count")
        _add(point, "sum", double_of(row, "sum"))
        if metric_type == "summary":
            _add_quantiles(point, row, otlp)
        else:
            add = _add_buckets if metric_type == "histogram" else _add_exponential_buckets
            add(point, row["buckets"] or {}, otlp.get("buckets", {}))
            _add(point, "min", double_of(row, "min"))
            _add(point, "max", double_of(row, "max"))
    if row["exemplars"]:
        notes = otlp.get("exemplars", {})
        point["exemplars"] = [
            _exemplar_of(exemplar, notes.get(str(index), {}))
            for index, exemplar in enumerate(row["exemplars"])
        ]
    if "flags" in otlp:
        point["flags"] = otlp["flags"]
    return point


def _add(point: dict[str, Any], name: str, value: float | str | None) -> None:
    if value is not None:
        point[name] = value


def _add_buckets(
    point: dict[str, Any], buckets: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    signs = notes.get("bounds", {})
    if buckets.get("counts"):
        point["bucketCounts"] = [str(count) for count in buckets["counts"]]
    if buckets.get("bounds"):
        point["explicitBounds"] = [
            json_double_of(bound, signs.get(str(index)))
            for index, bound in enumerate(buckets["bounds"])
        ]


def _add_exponential_buckets(
    point: dict[str, Any], buckets: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    point["scale"] = buckets.get("scale", 0)
    point["zeroCount"] = str(buckets.get("zero_count", 0))
    point["zeroThreshold"] = json_double_of(
        buckets.get("zero_threshold", 0.0), notes.get("zero_threshold")
    )
    for side in _SIDES:
        given = buckets.get(side)
        if given is not None:
            point[side] = {"offset": given.get("offset", 0)}
            if given.get("counts"):
                point[side]["bucketCounts"] = [str(count) for count in given["counts"]]


def _add_quantiles(point: dict[str, Any], row: Mapping[str, Any], otlp: Mapping[str, Any]) -> None:
    notes = otlp.get("quantiles", {})
    if row["quantiles"]:
        point["quantileValues"] = [
            {
                key: json_double_of(entry.get(key), notes.get(str(index), {}).get(key))
                for key in ("quantile", "value")
            }
            for index, entry in enumerate(row["quantiles"])
        ]


def _exemplar_of(exemplar: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"timeUnixNano": str(exemplar.get("time_unix_nano", 0))}
    pairs = key_values(exemplar.get("attributes"), notes.get("attributes"))
    if pairs:
        result["filteredAttributes"] = pairs
    value = exemplar.get("value")
    if value is not None:
        typed = any_value(value, notes.get("value"))
        names = {"intValue": "asInt", "doubleValue": "asDouble"}
        result |= {names[kind]: number for kind, number in typed.items() if kind in names}
    for name, key in (("spanId", "span_id"), ("traceId", "trace_id")):
        if exemplar.get(key):
            result[name] = exemplar[key]
    return result
