"""What does not need Django does not import it, and what needs it says how to get it."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_DJANGO = """
import sys
import observatory_storage
from observatory_storage import StoragePool, ConfigError
import observatory_storage.cli.main
print("django" in sys.modules)
sys.modules["django"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "django" else found(name, *rest)
try:
    import observatory_storage.django
except ConfigError as error:
    print(error)
"""
LIGHT = """
import sys
from observatory_storage.django import apps
print("sqlalchemy" in sys.modules)
"""


def printed(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return ended.stdout.strip()


def test_the_package_does_not_import_django_and_says_how_to_install_it() -> None:
    is_imported, error = printed(WITHOUT_DJANGO).splitlines()
    assert is_imported == "False"
    assert error == (
        "observatory_storage.django needs the extra: pip install 'observatory-storage[django]'"
    )


def test_commands_of_a_project_do_not_wait_for_sqlalchemy() -> None:
    assert printed(LIGHT) == "False"
