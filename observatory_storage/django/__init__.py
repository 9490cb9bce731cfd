"""The store in Django: an app with settings, checks, middleware, commands, admin pages and URLs.

Add ``"observatory_storage.django"`` to ``INSTALLED_APPS``.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

if find_spec("django") is None:
    from observatory_storage.errors import ConfigError

    raise ConfigError(
        "observatory_storage.django needs the extra: pip install 'observatory-storage[django]'"
    )

if TYPE_CHECKING:
    from observatory_storage.django.app_pool import (
        close_pool,
        get_log_writer,
        get_metric_writer,
        get_pool,
        get_trace_writer,
        unit_of_work,
    )
    from observatory_storage.django.project_handler import DjangoStorageHandler
    from observatory_storage.django.request_store import RequestStore

__all__ = [
    "DjangoStorageHandler",
    "RequestStore",
    "close_pool",
    "get_log_writer",
    "get_metric_writer",
    "get_pool",
    "get_trace_writer",
    "unit_of_work",
]

_MODULES = {"DjangoStorageHandler": "project_handler", "RequestStore": "request_store"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used.

    Django imports this package for each command of a project, most of which need no SQLAlchemy.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = _MODULES.get(name, "app_pool")
    return getattr(import_module(f"{__name__}.{module}"), name)
