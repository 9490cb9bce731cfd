"""Names say where things are: two modules or constants share a name only for a reason."""

from __future__ import annotations

import pkgutil
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import observatory_storage

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
    "urls",  # Django's name for what `include` takes; the other one parses URLs
}
# They exist for Django alone, which imports them when a project has been set up.
OF_DJANGO = ("observatory_storage.django.models", "observatory_storage.django.admin")


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


def test_a_constant_has_one_meaning_in_all_modules() -> None:
    kinds: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for found in pkgutil.walk_packages(observatory_storage.__path__, "observatory_storage."):
        if found.name.rpartition(".")[2] == "__main__":  # which would run
            continue
        if found.name.startswith(OF_DJANGO):
            continue
        module = import_module(found.name)
        for constant in filter(str.isupper, getattr(module, "__all__", ())):
            kinds[constant][type(getattr(module, constant)).__name__] = found.name
    assert kinds["LOGS"] == {"TableDefinition": "observatory_storage.tables"}
    assert {name: types for name, types in kinds.items() if len(types) > 1} == {}
