"""The command line, ``observatory-storage``."""

from observatory_storage.cli.main import main

__all__ = ["main"]
