"""Columns that report changes to their row, also JSON values that are changed in place.

``row.attributes["ticket"] = 17`` changes a dictionary, which SQLAlchemy would not notice. So the
first access to a JSON attribute replaces the dictionaries and lists of its value by `TrackedDict`
and `TrackedList`, which report each change to the row. Rows whose JSON is never accessed cost
nothing. `sqlalchemy.ext.mutable` does its work for every loaded row, and tracks only the outermost
value. It refers to the row weakly, so a change is lost if nothing else refers to the row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import ColumnProperty, InstrumentedAttribute
from sqlalchemy.orm.attributes import instance_state

from observatory_storage.stored_json import StoredJson, decode_columns

if TYPE_CHECKING:
    from observatory_storage.models.base import Base

__all__ = ["TrackedDict", "TrackedList", "track_changes"]

T = TypeVar("T")
_CONTAINERS: Final = (dict, list)


class _Owner:
    """The row and the attribute that a value belongs to."""

    __slots__ = ("has_new_values", "name", "row")

    def __init__(self, row: Base, name: str) -> None:
        self.row, self.name = row, name
        self.has_new_values = False

    def note_change(self) -> None:
        self.has_new_values = True
        self.row._note_change(self.name)


def _reports(*names: str) -> Callable[[type[T]], type[T]]:
    """Make the methods of these names report a change to the owner before they change the value."""

    def reporting(change: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(change)
        def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
            self.owner.note_change()  # raises if the session cannot take the row
            return change(self, *args, **kwargs)

        return changed

    def decorate(kind: type[T]) -> type[T]:
        for name in names:
            setattr(kind, name, reporting(getattr(kind, name)))
        return kind

    return decorate


@_reports(
    "__delitem__", "__ior__", "__setitem__", "clear", "pop", "popitem", "setdefault", "update"
)
class TrackedDict(dict[str, Any]):
    """A dictionary of a JSON column."""

    __slots__ = ("owner",)
    owner: _Owner

    def __reduce_ex__(self, _: object) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy belongs to no row


@_reports("__delitem__", "__iadd__", "__imul__", "__setitem__", "append", "clear", "extend")
@_reports("insert", "pop", "remove", "reverse", "sort")
class TrackedList(list[Any]):
    """A list of a JSON column."""

    __slots__ = ("owner",)
    owner: _Owner

    def __reduce_ex__(self, _: object) -> tuple[Any, ...]:
        return list, (list(self),)


def _tracked(value: Any, owner: _Owner) -> Any:
    """The value with tracked dictionaries and lists in place of all others."""
    is_dict = isinstance(value, dict)
    if getattr(value, "owner", None) is not owner:
        value = TrackedDict(value) if is_dict else TrackedList(value)
        value.owner = owner
    put = dict.__setitem__ if is_dict else list.__setitem__
    for key, inner in list(value.items() if is_dict else enumerate(value)):
        if isinstance(inner, _CONTAINERS):
            put(value, key, _tracked(inner, owner))
    return value


class _ColumnAttribute(InstrumentedAttribute[Any]):
    """The attribute of a column: the row that it is set in is written by the session that read it.

    `__setattr__` would do as well, but SQLAlchemy calls it for each row that is read.
    """

    __slots__ = ()
    inherit_cache = True

    def __set__(self, instance: Any, value: Any) -> None:
        if instance_state(instance).key is not None:
            instance._attach()
        super().__set__(instance, value)


class _JsonAttribute(_ColumnAttribute):
    """The attribute of a JSON column."""

    __slots__ = ()
    inherit_cache = True

    def __set__(self, instance: Any, value: Any) -> None:
        if type(instance.__dict__.get(self.key)) is StoredJson:
            decode_columns(instance.__dict__)  # SQLAlchemy keeps the value that was before
        super().__set__(instance, value)

    def __get__(self, instance: Any, owner: Any) -> Any:
        value = super().__get__(instance, owner)
        if type(value) is StoredJson:
            instance.__dict__[self.key] = value = value.load()
        if instance is None or not isinstance(value, _CONTAINERS):
            return value
        known = getattr(value, "owner", None)
        if known is None or known.row is not instance or known.name != self.key:
            known = _Owner(instance, self.key)
        elif not known.has_new_values:
            return value
        known.has_new_values = False
        instance.__dict__[self.key] = value = _tracked(value, known)
        return value


def track_changes(base: type[Any]) -> None:
    """Make the JSON attributes of all models report changes of their values."""

    @event.listens_for(base, "attribute_instrument", propagate=True)
    def _(model: type[Any], name: str, attribute: InstrumentedAttribute[Any]) -> None:
        prop = attribute.property
        if isinstance(prop, ColumnProperty):
            is_json = isinstance(prop.columns[0].type, JSONB)
            attribute.__class__ = _JsonAttribute if is_json else _ColumnAttribute
