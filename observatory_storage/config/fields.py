"""The list of all settings: key in a file, environment variables, default, description.

It is derived from the models. The sources, the error messages and the test that compares
`.env.example` and the documentation with the settings use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Key = tuple[str, ...]


class Env:
    """Annotates a field with its environment variables. The main one comes first."""

    def __init__(self, *variables: str) -> None:
        self.variables = variables


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        key: its path in a configuration file, such as ``("pool", "max_connections")``.
        variables: its environment variables, the main one first. May be empty.
        default: its default value.
        description: one line that describes it.
        secret: whether its value must never be shown.
        item_keys: the keys of its items, if it is a list of groups.
    """

    key: Key
    variables: tuple[str, ...]
    default: Any
    description: str
    secret: bool
    item_keys: tuple[str, ...] = ()


@cache
def settings_of(model: type[BaseModel], prefix: Key = ()) -> dict[Key, Setting]:
    """All settings of a model and of its sections, by key, in the order of the fields."""
    settings: dict[Key, Setting] = {}
    for name, field in model.model_fields.items():
        key = (*prefix, field.alias or name)
        variables = tuple(
            v for mark in field.metadata if isinstance(mark, Env) for v in mark.variables
        )
        section = section_of(field)
        if section is None:
            settings[key] = Setting(
                key,
                variables,
                _default(field),
                field.description or "",
                _secret(field.annotation),
                _item_keys(field.annotation),
            )
            continue
        if variables:
            # A variable for a whole section is a URL, which can contain a password.
            settings[key] = Setting(key, variables, None, field.description or "", secret=True)
        settings |= settings_of(section, key)
    return settings


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, else None."""
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    return None if default is PydanticUndefined else default


def _secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_secret(argument) for argument in get_args(annotation))


def _item_keys(annotation: Any) -> tuple[str, ...]:
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return tuple(argument.model_fields)
    return ()
