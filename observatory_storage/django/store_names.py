"""Where the store is, as the project's settings say, without reading all of them.

Django imports the models for each of its commands, which should not wait for the configuration.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings

__all__ = ["DEFAULT_ALIAS", "DEFAULT_SCHEMA", "database_alias", "qualified"]

DEFAULT_ALIAS: Final = "default"
# A schema of its own, since tables such as `logs` have common names.
DEFAULT_SCHEMA: Final = "observatory"


def database_alias() -> str | None:
    """The entry of ``DATABASES`` that the store is in; None if a URL names its database."""
    if getattr(settings, "OBSERVATORY_DATABASE_URL", None):
        return None
    return getattr(settings, "OBSERVATORY_DATABASE_ALIAS", None) or DEFAULT_ALIAS


def qualified(view: str) -> str:
    """The view in the store's schema, quoted: Django takes a name in quotes as it is."""
    schema = str(getattr(settings, "OBSERVATORY_SCHEMA", None) or DEFAULT_SCHEMA)
    return '"' + schema.replace('"', '""') + f'"."{view}"'
