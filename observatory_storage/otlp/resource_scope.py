"""The resource and the instrumentation scope, which OTLP states once for many items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct

from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.otlp import protojson
from observatory_storage.otlp.any_values import key_values, plain_map
from observatory_storage.otlp.json_reader import read
from observatory_storage.otlp.message_types import ENVELOPES, Resource, Scope, present, snake
from observatory_storage.rows import UNKNOWN_SERVICE

__all__ = [
    "Group",
    "Item",
    "Origin",
    "groups",
    "refused_items",
    "resource_of",
    "resource_origin",
    "scope_of",
    "scope_origin",
]

_NO_RESOURCE: Final = Resource()
_NO_SCOPE: Final = Scope()


class Item(NamedTuple):
    """One item of a request and its row.

    Attributes:
        source: the item: a message, JSON text or parsed JSON.
        row: the values of its row by column, or the prepared row; None if the item is refused.
        error: why the item is refused.
        path: where the item is in its request.
        dropped: why parts of the item are not in its row.
    """

    source: Any
    row: Any
    error: StorageError | None = None
    path: str = ""
    dropped: Sequence[ValidationError] = ()


class Origin(NamedTuple):
    """The columns of a resource and a scope, and their fields that have no column."""

    columns: dict[str, Any]
    otlp: dict[str, Any]

    def with_scope(self, scope: Origin) -> Origin:
        """Those of a resource and of a scope together."""
        return Origin(self.columns | scope.columns, self.otlp | scope.otlp)


_NO_ORIGIN: Final = Origin({}, {})


class Group(NamedTuple):
    """The items of one resource and scope, and their path in the request.

    Attributes:
        error: why the items are refused: their resource or scope is not valid.
    """

    origin: Origin
    items: Iterable[Any]
    path: str
    error: ValidationError | None = None


def groups(request: Any, keys: tuple[str, str, str]) -> Iterator[Group]:
    """The lists of items of a request, each with its resource and scope.

    Args:
        request: a message, or parsed OTLP/JSON.
        keys: the names of the lists of resources, scopes and items.

    Raises:
        ValidationError: a list of the request is not valid.
    """
    if isinstance(request, Mapping):
        request = read(ENVELOPES[keys], request)
    resources_key, scopes_key, items_key = keys
    resources_name, scopes_name, items_name = map(snake, keys)
    for resource_index, outer in enumerate(getattr(request, resources_name)):
        path = f"{resources_key}[{resource_index}]"
        resource, refused = _origin_or_error(_resource, outer, path)
        scoped_lists = getattr(outer, scopes_name)
        if refused is not None and not scoped_lists:
            yield Group(resource, [outer], path, refused)
        for scope_index, scoped in enumerate(scoped_lists):
            scope_path = f"{path}.{scopes_key}[{scope_index}]"
            scope, error = _origin_or_error(_scope, scoped, scope_path)
            error = refused or error
            items = getattr(scoped, items_name)
            if error is not None and not items:
                items = [scoped]
            yield Group(resource.with_scope(scope), items, f"{scope_path}.{items_key}", error)


def refused_items(group: Group) -> Iterator[Item]:
    """The items of a group whose resource or scope is not valid."""
    for index, item in enumerate(group.items):
        yield Item(item, None, group.error, f"{group.path}[{index}]")


def _origin_or_error(
    read_one: Callable[[Any, str], Origin], around: Any, path: str
) -> tuple[Origin, ValidationError | None]:
    try:
        return read_one(around, path), None
    except ValidationError as error:
        return _NO_ORIGIN, error


def _resource(outer: Any, path: str) -> Origin:
    return resource_origin(
        _opened(Resource, present(outer, "resource"), f"{path}.resource"), outer.schema_url, path
    )


def resource_origin(resource: Any, schema_url: str, path: str) -> Origin:
    """The columns and notes of a resource; None if it is absent.

    Args:
        resource: a message.
        schema_url: the URL of the message around it.
        path: where that message is in its request.

    Raises:
        ValidationError: the resource is not valid.
    """
    given = _NO_RESOURCE if resource is None else resource
    attributes, note = plain_map(given.attributes, f"{path}.resource.attributes")
    notes = _common_notes(given, schema_url, note, path)
    if resource is None:
        notes["absent"] = True
    if given.entity_refs:
        notes["entity_refs"] = [_entity(entity) for entity in given.entity_refs]
    service = attributes.get("service.name")
    if not isinstance(service, str) or not service:
        service = UNKNOWN_SERVICE
    return Origin(
        {"resource_attributes": attributes, "service_name": protojson.named(service)[0]},
        {"resource": notes} if notes else {},
    )


def _scope(scoped: Any, path: str) -> Origin:
    return scope_origin(
        _opened(Scope, present(scoped, "scope"), f"{path}.scope"), scoped.schema_url, path
    )


def scope_origin(scope: Any, schema_url: str, path: str) -> Origin:
    """The same of a scope."""
    given = _NO_SCOPE if scope is None else scope
    attributes, note = plain_map(given.attributes, f"{path}.scope.attributes")
    notes = _common_notes(given, schema_url, note, path)
    if scope is None:
        notes["absent"] = True
    return Origin(
        {
            "scope_name": given.name or None,
            "scope_version": given.version or None,
            "scope_attributes": attributes,
        },
        {"scope": notes} if notes else {},
    )


def _opened(kind: type[Struct], given: Any, path: str) -> Any:
    """A message; None if it is absent. Only those of parsed OTLP/JSON are not read yet."""
    if given is None or isinstance(given, kind) or hasattr(given, "SerializeToString"):
        return given
    return read(kind, given, path)


def _common_notes(given: Any, schema_url: str, note: Any, path: str) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    if note is not None:
        notes["attributes"] = note
    if schema_url:
        notes["schema_url"] = protojson.text(schema_url, f"{path}.schemaUrl")
    if given.dropped_attributes_count:
        notes["dropped_attributes_count"] = given.dropped_attributes_count
    return notes


def _entity(entity: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if entity.schema_url:
        result["schema_url"] = entity.schema_url
    if entity.type:
        result["type"] = entity.type
    if entity.id_keys:
        result["id_keys"] = list(entity.id_keys)
    if entity.description_keys:
        result["description_keys"] = list(entity.description_keys)
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
