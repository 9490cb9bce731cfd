"""Module names tell newcomers where things are, so two modules share one only for a reason."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("observatory_storage", "observatory_embedded")

# The same thing of different signals, or of different packages.
SHARED = {
    "__init__",  # a package's public names
    "__main__",  # what `python -m` runs
    "traces",  # each of the three signals, by package
    "metrics",
    "logs",
    "filters",  # the filters of one signal, in repositories/<signal>/
    "repository",  # the repository of one signal
    "results",  # what its methods return
}


def test_module_names_are_unique() -> None:
    folders = defaultdict(list)
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            folders[path.stem].append(str(path.parent.relative_to(REPOSITORY)))
    duplicates = {
        name: sorted(found)
        for name, found in folders.items()
        if len(found) > 1 and name not in SHARED
    }
    assert duplicates == {}
