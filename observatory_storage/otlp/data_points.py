"""Converts data points of OTLP to rows of `metric_data_points`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import any_value, key_values, plain_map, plain_value
from observatory_storage.otlp.numbers import (
    count_of,
    double_of,
    json_double,
    json_double_of,
    take_count,
    take_double,
)

__all__ = ["point_of", "point_row"]

_MIN_INT64: Final = -(2**63)
_MIN_INT32: Final = -(2**31)
_MAX_INT32: Final = 2**31 - 1
_SIDES: Final = ("positive", "negative")


def point_row(point: Any, kind: str) -> dict[str, Any]:
    """The row of a data point, without its ``metric_id``.

    Args:
        kind: the field of OTLP's Metric that contains the point: gauge, sum, histogram,
            exponentialHistogram or summary.

    Raises:
        ValidationError: the data point is invalid.
    """
    if not isinstance(point, Mapping):
        raise ValidationError("", point, "must be a data point: an object")
    otlp: dict[str, Any] = {}
    attributes, note = plain_map(point.get("attributes"), "attributes")
    if note is not None:
        otlp["attributes"] = note
    start = protojson.uint64(point.get("startTimeUnixNano"), "startTimeUnixNano")
    started, start_ns = protojson.moment(start) if start else (None, 0)
    timestamp, time_ns = protojson.moment(
        protojson.uint64(point.get("timeUnixNano"), "timeUnixNano")
    )
    # The table has no columns for nanoseconds, since the key of a point would need them too.
    if start_ns:
        otlp["start_ns"] = start_ns
    if time_ns:
        otlp["time_ns"] = time_ns
    # This distinguishes points that have the same attributes, start and microsecond.
    origin = dict(otlp) or None
    flags = protojson.uint32(point.get("flags"), "flags")
    if flags:
        otlp["flags"] = flags
    row: dict[str, Any] = {
        "id": ids.data_point_id(attributes=attributes, start_timestamp=started, origin=origin),
        "start_timestamp": started,
        "timestamp": timestamp,
        "attributes": attributes,
    }
    if kind in ("gauge", "sum"):
        _take_number(point, row, otlp)
    else:
        take_count(point, "count", row, "count", otlp)
        take_double(point, "sum", row, "sum", otlp)
        if kind == "summary":
            # OTLP does not distinguish an absent sum from zero.
            if "sum" not in otlp:
                row.setdefault("sum", 0.0)
            row["quantiles"] = _quantiles(point, otlp)
        else:
            take_double(point, "min", row, "min", otlp)
            take_double(point, "max", row, "max", otlp)
            buckets = _buckets if kind == "histogram" else _exponential_buckets
            row["buckets"] = buckets(point, otlp)
    exemplars = protojson.items(point.get("exemplars"), "exemplars")
    if exemplars:
        row["exemplars"] = _exemplars(exemplars, otlp)
    row["otlp"] = otlp or None
    return row


def _take_number(point: Mapping[str, Any], row: dict[str, Any], otlp: dict[str, Any]) -> None:
    value = point.get("asInt")
    if value is None:
        take_double(point, "asDouble", row, "value", otlp)
        return
    if point.get("asDouble") is not None:
        raise ValidationError("asInt", value, "must not stand beside asDouble")
    number = protojson.integer(value, "asInt", _MIN_INT64, protojson.MAX_INT64)
    # The column is a double, which rounds integers above 2**53. The note has the exact integer.
    row["value"] = float(number)
    otlp["as_int"] = number


def _counts(value: Any, field: str) -> list[int]:
    return [protojson.uint64(count, field) for count in protojson.items(value, field)]


def _buckets(point: Mapping[str, Any], otlp: dict[str, Any]) -> dict[str, Any]:
    bounds: list[float | str] = []
    notes: dict[str, Any] = {}
    given = protojson.items(point.get("explicitBounds"), "explicitBounds")
    for index, bound in enumerate(given):
        plain, note = json_double(bound, f"explicitBounds[{index}]")
        bounds.append(plain)
        if note:
            notes[str(index)] = note
    if notes:
        otlp["buckets"] = {"bounds": notes}
    return {"bounds": bounds, "counts": _counts(point.get("bucketCounts"), "bucketCounts")}


def _exponential_buckets(point: Mapping[str, Any], otlp: dict[str, Any]) -> dict[str, Any]:
    threshold, note = json_double(point.get("zeroThreshold"), "zeroThreshold")
    if note:
        otlp["buckets"] = {"zero_threshold": note}
    buckets: dict[str, Any] = {
        "scale": protojson.integer(point.get("scale"), "scale", _MIN_INT32, _MAX_INT32),
        "zero_count": protojson.uint64(point.get("zeroCount"), "zeroCount"),
        "zero_threshold": threshold,
    }
    for side in _SIDES:
        given = protojson.message(point.get(side), side)
        if given is not None:
            buckets[side] = {
                "offset": protojson.integer(
                    given.get("offset"), f"{side}.offset", _MIN_INT32, _MAX_INT32
                ),
                "counts": _counts(given.get("bucketCounts"), f"{side}.bucketCounts"),
            }
    return buckets


def _quantiles(point: Mapping[str, Any], otlp: dict[str, Any]) -> list[dict[str, Any]]:
    quantiles: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for index, entry in enumerate(protojson.items(point.get("quantileValues"), "quantileValues")):
        field = f"quantileValues[{index}]"
        given = protojson.message(entry, field) or {}
        plain: dict[str, Any] = {}
        noted: dict[str, Any] = {}
        for key in ("quantile", "value"):
            plain[key], note = json_double(given.get(key), f"{field}.{key}")
            if note:
                noted[key] = note
        quantiles.append(plain)
        if noted:
            notes[str(index)] = noted
    if notes:
        otlp["quantiles"] = notes
    return quantiles


def _exemplars(given: list[Any], otlp: dict[str, Any]) -> list[dict[str, Any]]:
    exemplars: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for index, entry in enumerate(given):
        exemplar, noted = _exemplar(entry, f"exemplars[{index}]")
        exemplars.append(exemplar)
        if noted:
            notes[str(index)] = noted
    if notes:
        otlp["exemplars"] = notes
    return exemplars


def _exemplar(entry: Any, field: str) -> tuple[dict[str, Any], dict[str, Any]]:
    given = protojson.message(entry, field) or {}
    noted: dict[str, Any] = {}
    attributes, note = plain_map(given.get("filteredAttributes"), f"{field}.filteredAttributes")
    if note is not None:
        noted["attributes"] = note
    exemplar: dict[str, Any] = {
        "time_unix_nano": protojson.uint64(given.get("timeUnixNano"), f"{field}.timeUnixNano"),
        "attributes": attributes,
    }
    # The number is stored like the value of an attribute, so integers differ from doubles.
    members = {
        kind: given[name]
        for kind, name in (("intValue", "asInt"), ("doubleValue", "asDouble"))
        if given.get(name) is not None
    }
    if members:
        exemplar["value"], note = plain_value(members, f"{field}.value")
        if note is not None:
            noted["value"] = note
    for key, name in (("span_id", "spanId"), ("trace_id", "traceId")):
        identifier = protojson.hex_id(given.get(name), f"{field}.{name}")
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
