"""Stores traces, metrics and logs of LLM applications in the application's own PostgreSQL."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from observatory_storage import public_names, public_reading_names
    from observatory_storage.public_names import *  # noqa: F403 - they are listed there, once
    from observatory_storage.public_reading_names import *  # noqa: F403

    __all__ = public_names.__all__ + public_reading_names.__all__
else:
    from importlib import import_module

    def __getattr__(name: str) -> object:
        """Import the public names when the first of them is used, those of reading apart.

        The command line imports this package too, and must not wait for SQLAlchemy to print its
        version. Nor must a process that only writes wait for what reads.
        """
        from importlib.util import find_spec

        if find_spec(f"{__name__}.{name}") is not None:
            # A submodule, which `from observatory_storage import ids` looks up here first.
            return import_module(f"{__name__}.{name}")
        if name == "__all__":
            return sorted(each for names in _listings() for each in names.__all__)
        for names in _listings():
            if name in names.__all__:
                value = globals()[name] = getattr(names, name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})

    def _listings():
        yield import_module(f"{__name__}.public_names")
        yield import_module(f"{__name__}.public_reading_names")
