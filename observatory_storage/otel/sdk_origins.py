"""The resources and scopes of the SDK's objects, converted once each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from observatory_storage.errors import ValidationError
from observatory_storage.otel.sdk_values import plain_attributes
from observatory_storage.otlp import message_types
from observatory_storage.otlp.resource_scope import (
    Group,
    Origin,
    resource_origin,
    scope_origin,
)

__all__ = ["Origins"]

# An application has one resource, and a scope for each of its instrumentations and loggers.
_MOST: Final = 1000
_NO_SCOPE: Final = InstrumentationScope("")
_M = TypeVar("_M")


class Origins:
    """Groups messages by the columns of their resource and scope. Any thread may use it.

    Args:
        path: what is grouped, in the plural, for errors.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # By the ids of resource and scope, which the values keep alive: to hash a resource, the SDK
        # writes all of its attributes as JSON.
        self._known: dict[tuple[int, int], tuple[Any, Any, Group]] = {}
        # Equal scopes are often other objects, such as those of a tracer made for each request.
        self._equal: dict[tuple[Resource, InstrumentationScope], Group] = {}

    def groups(self, messages: Iterable[tuple[Any, _M]]) -> list[Group]:
        """The messages in groups of one resource and scope.

        Args:
            messages: each with the object of the SDK that it was made from.
        """
        members: dict[int, tuple[Group, list[_M]]] = {}
        found: list[_M] = []
        last_resource: Any = found  # unlike any resource
        last_scope: Any = None
        for item, message in messages:
            resource, scope = item.resource, item.instrumentation_scope
            if resource is not last_resource or scope is not last_scope:
                last_resource, last_scope = resource, scope
                group = self.of(resource, scope)
                _, found = members.setdefault(id(group), (group, []))
            found.append(message)
        return [group._replace(items=items) for group, items in members.values()]

    def of(self, resource: Resource, scope: InstrumentationScope | None) -> Group:
        """The group of a resource and a scope, without items."""
        known = self._known.get((id(resource), id(scope)))
        if known is not None:
            return known[2]
        if len(self._known) >= _MOST:
            self._known.clear()
            self._equal.clear()
        key = resource, _NO_SCOPE if scope is None else scope
        group = self._equal.get(key)
        if group is None:
            group = self._equal[key] = self._group(*key)
        self._known[id(resource), id(scope)] = resource, scope, group
        return group

    def _group(self, resource: Resource, scope: InstrumentationScope) -> Group:
        try:
            of_resource = message_types.Resource(
                attributes=plain_attributes(resource.attributes, "resource.attributes")  # type: ignore[arg-type]  # read already
            )
            of_scope = message_types.Scope(
                name=scope.name or "",
                version=scope.version or "",
                attributes=plain_attributes(scope.attributes, "scope.attributes"),  # type: ignore[arg-type]  # read already
            )
            origin = resource_origin(of_resource, resource.schema_url or "", "resource")
            origin = origin.with_scope(scope_origin(of_scope, scope.schema_url or "", "scope"))
        except ValidationError as error:
            return Group(Origin({}, {}), (), self._path, error)
        return Group(origin, (), self._path)
