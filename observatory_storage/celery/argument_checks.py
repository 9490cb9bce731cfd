"""Checks of the arguments that this package takes."""

from __future__ import annotations

import math

from observatory_storage.errors import ConfigError

__all__ = ["check_application", "is_positive"]


def check_application(app: object) -> None:
    """Refuse what is no Celery application.

    Raises:
        ConfigError: it is none, or Celery is not installed.
    """
    try:
        from celery import Celery
    except ImportError as error:
        raise ConfigError(
            "Celery needs the extra: pip install 'observatory-storage[celery]'"
        ) from error
    if not isinstance(app, Celery):
        raise ConfigError(f"app: must be a Celery application, not {type(app).__name__}")


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0
