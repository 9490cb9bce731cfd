"""Stores traces, metrics and logs of LLM applications in the application's own PostgreSQL."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from observatory_storage.public_names import *  # noqa: F403 - they are listed there, once
    from observatory_storage.public_names import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """Import the public names when the first of them is used.

        The command line imports this package too, and must not wait for SQLAlchemy to print its
        version.
        """
        from importlib import import_module
        from importlib.util import find_spec

        if find_spec(f"{__name__}.{name}") is not None:
            # A submodule, which `from observatory_storage import ids` looks up here first.
            return import_module(f"{__name__}.{name}")
        value: object = getattr(import_module(f"{__name__}.public_names"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
