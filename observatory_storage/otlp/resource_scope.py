"""The resource and the instrumentation scope, which OTLP states once for many items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import key_values, plain_map
from observatory_storage.rows import UNKNOWN_SERVICE

__all__ = ["Group", "Item", "Origin", "groups", "resource_of", "scope_of"]


class Item(NamedTuple):
    """One item of a request and its row.

    Attributes:
        source: the item as it is in OTLP.
        row: the values of its row by column; None if the item is refused.
        error: why the item is refused.
    """

    source: Any
    row: dict[str, Any] | None
    error: StorageError | None = None


class Origin(NamedTuple):
    """The columns of a resource and a scope, and their fields that have no column."""

    columns: dict[str, Any]
    otlp: dict[str, Any]


class Group(NamedTuple):
    """The items of one resource and scope, and their path in the request."""

    origin: Origin
    items: list[Any]
    path: str


def groups(request: Mapping[str, Any], keys: tuple[str, str, str]) -> Iterator[Group]:
    """The lists of items of a request, each with its resource and scope.

    Args:
        keys: the names of the lists of resources, scopes and items.

    Raises:
        ValidationError: the request is invalid outside of the items.
    """
    resources_key, scopes_key, items_key = keys
    resources = protojson.items(request.get(resources_key), resources_key)
    for resource_index, entry in enumerate(resources):
        path = f"{resources_key}[{resource_index}]"
        outer = protojson.message(entry, path) or {}
        _check_spelling(outer, scopes_key, path)
        resource = _resource(outer, path)
        scopes = protojson.items(outer.get(scopes_key), f"{path}.{scopes_key}")
        for scope_index, inner in enumerate(scopes):
            scope_path = f"{path}.{scopes_key}[{scope_index}]"
            scoped = protojson.message(inner, scope_path) or {}
            _check_spelling(scoped, items_key, scope_path)
            items_path = f"{scope_path}.{items_key}"
            items = protojson.items(scoped.get(items_key), items_path)
            scope = _scope(scoped, scope_path)
            origin = Origin(resource.columns | scope.columns, resource.otlp | scope.otlp)
            yield Group(origin, items, items_path)


def _check_spelling(holder: Mapping[str, Any], key: str, path: str) -> None:
    """Refuse lists of items that have a snake_case name, or a name of older versions of OTLP.

    Other unknown fields are ignored. Ignoring these would lose the whole request.
    """
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
    for name in (snake, f"instrumentationLibrary{key.removeprefix('scope')}"):
        if name != key and name in holder:
            raise ValidationError(f"{path}.{name}", holder[name], f"must be named {key}")


def _resource(outer: Mapping[str, Any], path: str) -> Origin:
    field = f"{path}.resource"
    resource = protojson.message(outer.get("resource"), field)
    given = resource or {}
    attributes, note = plain_map(given.get("attributes"), f"{field}.attributes")
    notes = _common_notes(given, outer, note, path, "resource")
    if resource is None:
        notes["absent"] = True
    entities = [
        _entity(entity, f"{field}.entityRefs[{index}]")
        for index, entity in enumerate(
            protojson.items(given.get("entityRefs"), f"{field}.entityRefs")
        )
    ]
    if entities:
        notes["entity_refs"] = entities
    service = attributes.get("service.name")
    if not isinstance(service, str) or not service:
        service = UNKNOWN_SERVICE
    return Origin(
        {"resource_attributes": attributes, "service_name": protojson.named(service)[0]},
        {"resource": notes} if notes else {},
    )


def _scope(scoped: Mapping[str, Any], path: str) -> Origin:
    field = f"{path}.scope"
    scope = protojson.message(scoped.get("scope"), field)
    given = scope or {}
    attributes, note = plain_map(given.get("attributes"), f"{field}.attributes")
    notes = _common_notes(given, scoped, note, path, "scope")
    if scope is None:
        notes["absent"] = True
    return Origin(
        {
            "scope_name": protojson.text(given.get("name"), f"{field}.name") or None,
            "scope_version": protojson.text(given.get("version"), f"{field}.version") or None,
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
    url = protojson.text(around.get("schemaUrl"), f"{path}.schemaUrl")
    if url:
        notes["schema_url"] = url
    dropped = protojson.uint32(
        given.get("droppedAttributesCount"), f"{path}.{name}.droppedAttributesCount"
    )
    if dropped:
        notes["dropped_attributes_count"] = dropped
    return notes


def _entity(entity: Any, field: str) -> dict[str, Any]:
    given = protojson.message(entity, field) or {}
    result: dict[str, Any] = {}
    for key, name in (("schema_url", "schemaUrl"), ("type", "type")):
        value = protojson.text(given.get(name), f"{field}.{name}")
        if value:
            result[key] = value
    for key, name in (("id_keys", "idKeys"), ("description_keys", "descriptionKeys")):
        values = protojson.items(given.get(name), f"{field}.{name}")
        if values:
            result[key] = [protojson.text(value, f"{field}.{name}") for value in values]
    return result


def resource_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A ResourceSpans, ResourceMetrics or ResourceLogs with the resource of the row, and no items.

    If the resource of a hand-written row does not name its service, the column gives the name.
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
    """A ScopeSpans, ScopeMetrics or ScopeLogs with the scope of the row, and no items."""
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
