"""Where telemetry came from: the resource and the scope that OTLP states once for many items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.otlp import wire
from observatory_storage.otlp.values import key_values, plain_map
from observatory_storage.rows import UNKNOWN_SERVICE

__all__ = ["Group", "Item", "Origin", "groups", "resource_of", "scope_of"]


class Item(NamedTuple):
    """One item of a request as rows.

    Attributes:
        source: the item as OTLP has it.
        row: the row's values by column; None where the item was refused.
        error: why it was refused.
    """

    source: Any
    row: dict[str, Any] | None
    error: StorageError | None = None


class Origin(NamedTuple):
    """The columns that a resource and a scope fill, and what of them has no column."""

    columns: dict[str, Any]
    otlp: dict[str, Any]


class Group(NamedTuple):
    """The items of one resource and scope, and where in the request they stand."""

    origin: Origin
    items: list[Any]
    path: str


def groups(request: Mapping[str, Any], keys: tuple[str, str, str]) -> Iterator[Group]:
    """The items of a request, each list of them with its resource and scope.

    Args:
        keys: the names of the lists of resources, scopes and items.

    Raises:
        ValidationError: something outside the items is no OTLP.
    """
    resources_key, scopes_key, items_key = keys
    for at, entry in enumerate(wire.items(request.get(resources_key), resources_key)):
        path = f"{resources_key}[{at}]"
        outer = wire.message(entry, path) or {}
        _check_spelling(outer, scopes_key, path)
        resource = _resource(outer, path)
        for place, inner in enumerate(wire.items(outer.get(scopes_key), f"{path}.{scopes_key}")):
            here = f"{path}.{scopes_key}[{place}]"
            scoped = wire.message(inner, here) or {}
            _check_spelling(scoped, items_key, here)
            items = wire.items(scoped.get(items_key), f"{here}.{items_key}")
            scope = _scope(scoped, here)
            origin = Origin(resource.columns | scope.columns, resource.otlp | scope.otlp)
            yield Group(origin, items, f"{here}.{items_key}")


def _check_spelling(holder: Mapping[str, Any], key: str, path: str) -> None:
    """Refuse what holds its items under a name that OTLP/JSON does not have (any more).

    Unknown fields are ignored, but these are all that was sent.
    """
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
    for name in (snake, f"instrumentationLibrary{key.removeprefix('scope')}"):
        if name != key and name in holder:
            raise ValidationError(f"{path}.{name}", holder[name], f"must be named {key}")


def _resource(outer: Mapping[str, Any], path: str) -> Origin:
    field = f"{path}.resource"
    resource = wire.message(outer.get("resource"), field)
    given = resource or {}
    attributes, note = plain_map(given.get("attributes"), f"{field}.attributes")
    notes = _common_notes(given, outer, note, path, "resource")
    if resource is None:
        notes["absent"] = True
    entities = [
        _entity(entity, f"{field}.entityRefs[{at}]")
        for at, entity in enumerate(wire.items(given.get("entityRefs"), f"{field}.entityRefs"))
    ]
    if entities:
        notes["entity_refs"] = entities
    service = attributes.get("service.name")
    if not isinstance(service, str) or not service:
        service = UNKNOWN_SERVICE
    return Origin(
        {"resource_attributes": attributes, "service_name": wire.named(service)[0]},
        {"resource": notes} if notes else {},
    )


def _scope(scoped: Mapping[str, Any], path: str) -> Origin:
    field = f"{path}.scope"
    scope = wire.message(scoped.get("scope"), field)
    given = scope or {}
    attributes, note = plain_map(given.get("attributes"), f"{field}.attributes")
    notes = _common_notes(given, scoped, note, path, "scope")
    if scope is None:
        notes["absent"] = True
    return Origin(
        {
            "scope_name": wire.text(given.get("name"), f"{field}.name") or None,
            "scope_version": wire.text(given.get("version"), f"{field}.version") or None,
            "scope_attributes": attributes,
        },
        {"scope": notes} if notes else {},
    )


def _common_notes(
    given: Mapping[str, Any], around: Mapping[str, Any], note: Any, path: str, name: str
) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    if note is not None:
        notes["attributes"] = note
    url = wire.text(around.get("schemaUrl"), f"{path}.schemaUrl")
    if url:
        notes["schema_url"] = url
    dropped = wire.uint32(
        given.get("droppedAttributesCount"), f"{path}.{name}.droppedAttributesCount"
    )
    if dropped:
        notes["dropped_attributes_count"] = dropped
    return notes


def _entity(entity: Any, field: str) -> dict[str, Any]:
    given = wire.message(entity, field) or {}
    result: dict[str, Any] = {}
    for key, name in (("schema_url", "schemaUrl"), ("type", "type")):
        value = wire.text(given.get(name), f"{field}.{name}")
        if value:
            result[key] = value
    for key, name in (("id_keys", "idKeys"), ("description_keys", "descriptionKeys")):
        values = wire.items(given.get(name), f"{field}.{name}")
        if values:
            result[key] = [wire.text(value, f"{field}.{name}") for value in values]
    return result


def resource_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The resource of a row as the beginning of a ResourceSpans, ResourceMetrics or ResourceLogs.

    A hand-written row whose resource does not name its service gets the name from its column.
    """
    notes = _notes(row, "resource")
    attributes = dict(row["resource_attributes"] or {})
    if row["service_name"] != UNKNOWN_SERVICE and not _names_service(attributes):
        attributes["service.name"] = row["service_name"]
    resource: dict[str, Any] = {}
    pairs = key_values(attributes, notes.get("attributes"))
    if pairs:
        resource["attributes"] = pairs
    if "dropped_attributes_count" in notes:
        resource["droppedAttributesCount"] = notes["dropped_attributes_count"]
    if "entity_refs" in notes:
        names = (
            ("schema_url", "schemaUrl"),
            ("type", "type"),
            ("id_keys", "idKeys"),
            ("description_keys", "descriptionKeys"),
        )
        resource["entityRefs"] = [
            {name: entity[key] for key, name in names if key in entity}
            for entity in notes["entity_refs"]
        ]
    result: dict[str, Any] = {} if notes.get("absent") and not resource else {"resource": resource}
    if "schema_url" in notes:
        result["schemaUrl"] = notes["schema_url"]
    return result


def _names_service(attributes: Mapping[str, Any]) -> bool:
    return bool(attributes.get("service.name"))


def scope_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The scope of a row as the beginning of a ScopeSpans, ScopeMetrics or ScopeLogs."""
    notes = _notes(row, "scope")
    scope: dict[str, Any] = {}
    if row["scope_name"]:
        scope["name"] = row["scope_name"]
    if row["scope_version"]:
        scope["version"] = row["scope_version"]
    pairs = key_values(row["scope_attributes"], notes.get("attributes"))
    if pairs:
        scope["attributes"] = pairs
    if "dropped_attributes_count" in notes:
        scope["droppedAttributesCount"] = notes["dropped_attributes_count"]
    result: dict[str, Any] = {} if notes.get("absent") and not scope else {"scope": scope}
    if "schema_url" in notes:
        result["schemaUrl"] = notes["schema_url"]
    return result


def _notes(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    notes = (row["otlp"] or {}).get(key)
    return notes if isinstance(notes, dict) else {}
