"""Converts metrics of OTLP to rows of `metrics` and `metric_data_points`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from observatory_storage.errors import ValidationError
from observatory_storage.models import TEMPORALITIES
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import key_values, plain_map
from observatory_storage.otlp.data_points import point_row
from observatory_storage.otlp.json_reader import as_json, read_item, within
from observatory_storage.otlp.message_types import POINTS, Data, Metric, present
from observatory_storage.otlp.resource_scope import Group, Item, Origin, groups

__all__ = ["KEYS", "MetricItems", "metric_items", "metric_of", "metric_rows"]

KEYS: Final = ("resourceMetrics", "scopeMetrics", "metrics")

_KINDS: Final = {
    "gauge": "gauge",
    "sum": "sum",
    "histogram": "histogram",
    "exponential_histogram": "exponentialHistogram",
    "summary": "summary",
}
_NO_DATA: Final = Data()
_TYPES: Final = {
    "gauge": "gauge",
    "histogram": "histogram",
    "exponential_histogram": "exponential_histogram",
    "summary": "summary",
}
_KIND_OF_TYPE: Final = {metric_type: _KINDS[kind] for kind, metric_type in _TYPES.items()} | {
    "counter": "sum",
    "updowncounter": "sum",
}


class MetricItems(NamedTuple):
    """A metric and its data points. Each of them may be refused."""

    definition: Item
    points: list[Item]


def metric_rows(request: Any) -> Iterator[MetricItems]:
    """The metrics of a request.

    Raises:
        ValidationError: a list of the request is not valid.
    """
    for group in groups(request, KEYS):
        if group.error is not None:
            yield from (_refused(metric, group.error) for metric in group.items)
        else:
            yield from metric_items(group)


def metric_items(group: Group) -> Iterator[MetricItems]:
    """The metrics of one resource and scope."""
    for index, metric in enumerate(group.items):
        path = f"{group.path}[{index}]"
        try:
            kind, points, row = _definition(read_item(Metric, metric), group.origin)
        except ValidationError as error:
            yield _refused(metric, within(path, error))
            continue
        points_path = f"{path}.{_KINDS[kind]}.dataPoints"
        yield MetricItems(
            Item(metric, row, None, path),
            [_point(point, kind, f"{points_path}[{index}]") for index, point in enumerate(points)],
        )


def _refused(metric: Any, error: ValidationError) -> MetricItems:
    points = _points_of(as_json(metric))
    return MetricItems(Item(metric, None, error), [Item(point, None, error) for point in points])


def _point(point: Any, kind: str, path: str) -> Item:
    dropped: list[ValidationError] = []
    try:
        row = point_row(read_item(POINTS[kind], point), kind, dropped)
    except ValidationError as error:
        return Item(point, None, within(path, error), path)
    return Item(
        point, row, None, path, [within(path, error) for error in dropped] if dropped else ()
    )


def _points_of(metric: Any) -> list[Any]:
    """The data points of a refused metric, which are refused with it."""
    if not isinstance(metric, Mapping):
        return []
    return [
        point
        for kind in _KINDS.values()
        if isinstance(metric.get(kind), Mapping)
        and isinstance(metric[kind].get("dataPoints"), list)
        for point in metric[kind]["dataPoints"]
    ]


def _definition(metric: Any, origin: Origin) -> tuple[str, Iterable[Any], dict[str, Any]]:
    otlp = origin.otlp.copy()
    kinds = [kind for kind in _KINDS if present(metric, kind) is not None]
    if len(kinds) > 1:
        first, second = (_KINDS[kind] for kind in kinds[:2])
        raise ValidationError(second, "…", f"must not stand beside {first}")
    kind = kinds[0] if kinds else "gauge"
    if not kinds:
        otlp["data"] = "absent"
    data = getattr(metric, kind) or _NO_DATA
    name, whole_name = protojson.named(metric.name)
    if whole_name is not None:
        otlp["name"] = whole_name
    metadata, note = plain_map(metric.metadata, "metadata")
    if note is not None:
        otlp["attributes"] = note
    row = {
        **origin.columns,
        "name": name,
        "description": metric.description or None,
        "unit": metric.unit or None,
        "metric_type": _type_of(kind, data),
        "temporality": _temporality(kind, data, otlp),
        "attributes": metadata,
        "otlp": otlp or None,
    }
    return kind, data.data_points, row


def _type_of(kind: str, data: Any) -> str:
    if kind != "sum":
        return _TYPES[kind]
    # Strict JSON has true and false alone; what else may stand there is told by its reader.
    return "counter" if protojson.boolean(data.is_monotonic, "sum.isMonotonic") else "updowncounter"


def _temporality(kind: str, data: Any, otlp: dict[str, Any]) -> str | None:
    if kind in ("gauge", "summary"):
        return None
    number: int = data.aggregation_temporality
    if 0 <= number < len(TEMPORALITIES):
        return TEMPORALITIES[number]
    otlp["temporality"] = number
    return TEMPORALITIES[0]


def metric_of(row: Mapping[str, Any], points: list[dict[str, Any]]) -> dict[str, Any]:
    """The OTLP/JSON of a metric, from a row with all columns and its data points as OTLP/JSON."""
    otlp = row["otlp"] or {}
    metric: dict[str, Any] = {"name": otlp.get("name", row["name"])}
    if row["description"]:
        metric["description"] = row["description"]
    if row["unit"]:
        metric["unit"] = row["unit"]
    pairs = key_values(row["attributes"], otlp.get("attributes"))
    if pairs:
        metric["metadata"] = pairs
    if otlp.get("data") == "absent" and not points:
        return metric
    kind = _KIND_OF_TYPE[row["metric_type"]]
    data: dict[str, Any] = {"dataPoints": points} if points else {}
    if kind not in ("gauge", "summary"):
        known = TEMPORALITIES.index(row["temporality"] or TEMPORALITIES[0])
        data["aggregationTemporality"] = otlp.get("temporality", known)
    if kind == "sum":
        data["isMonotonic"] = row["metric_type"] == "counter"
    metric[kind] = data
    return metric
