"""Reads the settings that an integration of a web framework has itself, beside the store's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from observatory_storage.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _Arguments = TypeVar("_Arguments", bound=DataclassInstance)

__all__ = ["REQUEST_WRITERS", "is_unset", "read_arguments", "read_flag", "read_name"]

# Arguments of the writers that requests use: a request must not wait for a database that is away,
# and people soon look for what it has recorded.
REQUEST_WRITERS: Final[Mapping[str, Any]] = {"on_full": "drop", "flush_interval_secs": 2.0}


def is_unset(value: Any) -> bool:
    """Whether a setting has no value: None, or an empty text, as variables have it."""
    return value is None or value == ""


def read_flag(value: Any) -> bool:
    """True or False, also as 1 or 0, which Flask reads from variables.

    Raises:
        ConfigError: it is neither.
    """
    if value not in (True, False):
        raise ConfigError("must be True or False")
    return bool(value)


def read_name(value: Any) -> str:
    """A name.

    Raises:
        ConfigError: it is not a text, or it is blank.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("must be a name")
    return value


def read_arguments(model: type[_Arguments], value: Any, defaults: Mapping[str, Any]) -> _Arguments:
    """An instance of a dataclass, or its arguments by name.

    Args:
        model: the dataclass.
        value: the instance, or the arguments.
        defaults: arguments that count unless `value` has them.

    Raises:
        ConfigError: it is neither, or an argument has no such name.
        ValidationError: the dataclass refuses the value of an argument.
    """
    if isinstance(value, model):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"must be a {model.__name__}, or a dict with its arguments")
    known = {field.name for field in fields(model)}
    if unknown := sorted(str(name) for name in value if name not in known):
        raise ConfigError(f"has no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return model(**{**defaults, **value})
