"""The error of the parsers of configuration files."""

from __future__ import annotations

__all__ = ["UnreadableError"]


class UnreadableError(Exception):
    """The text does not parse. The message does not quote it, since it may contain a secret."""
