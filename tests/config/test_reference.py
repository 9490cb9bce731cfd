"""`.env.example` and the documentation list every setting, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from observatory_storage.config import StorageConfig, settings_of
from tests.config.conftest import Environment, problems
from tests.config.settings_table import PAGE, SECTION, default_text, table

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "observatory_storage"
SETTINGS = settings_of(StorageConfig)
VARIABLES = {v: setting for setting in SETTINGS.values() for v in setting.variables}


def example() -> list[tuple[str, str, str]]:
    """Each variable of `.env.example` with its default and the line of explanation above it."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return re.findall(r"^# (.+)\n#?([A-Z_]+)=(.*)$", text, re.MULTILINE)


def documented(block: str) -> str:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{block}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found[-1])


def test_variables_are_unique_and_described() -> None:
    assert len(VARIABLES) == sum(len(setting.variables) for setting in SETTINGS.values())
    for setting in SETTINGS.values():
        assert setting.description.endswith(".")
        assert setting.variables or setting.key == ("postgres", "parameters")


def test_the_example_is_complete() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert sorted(name for _, name, _ in example()) == sorted(VARIABLES)
    assert len(re.findall(r"^#?[A-Z_]+=", text, re.MULTILINE)) == len(VARIABLES)
    for explanation, name, default in example():
        setting = VARIABLES[name]
        assert default.removesuffix(".0") == default_text(setting)
        if name == setting.variables[0]:
            assert explanation == setting.description
        else:
            assert setting.variables[0] in explanation


def test_the_example_changes_nothing_when_it_is_used() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    Path(".env").write_text(text, encoding="utf-8")
    assert StorageConfig.from_env() == StorageConfig()
    Path(".env").write_text(re.sub(r"^#([A-Z])", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    assert StorageConfig.from_env() == StorageConfig()


def test_the_table_of_the_documentation_is_current() -> None:
    """If it is not, run ``python -m tests.config.settings_table``."""
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"<!-- {SECTION} -->\n(.*?)<!-- end of", text, re.DOTALL)
    assert found.strip() == table().strip()


def test_no_variable_in_the_documentation_is_unknown() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert set(
        re.findall(r"\b(?:DB_[A-Z_]+[A-Z]|REDIS_[A-Z_]+|OBSERVATORY_[A-Z_]+)\b", text)
    ) <= set(VARIABLES)


def test_the_three_documented_forms_are_equal_and_load() -> None:
    configs = []
    for block in ("yaml", "toml", "json"):
        Path(f"storage.{block}").write_text(documented(block), encoding="utf-8")
        configs.append(StorageConfig.from_file(f"storage.{block}"))
    assert configs[0] == configs[1] == configs[2]
    assert configs[0].postgres.schema_name == "telemetry"


def test_the_documented_python_runs() -> None:
    found: dict[str, Any] = {}
    exec(compile(documented("python"), "docs/configuration.md", "exec"), found)
    assert found["config"].postgres.host == "db.internal"


def test_the_documented_errors_are_the_real_ones(environment: Environment) -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    environment(DB_PORT="70000", DB_MAX_CONNECTIONS="3")
    Path("storage.yaml").write_text("{postgres: {pasword: x}, pool: {min_connections: 9}}")
    lines = problems(lambda: StorageConfig.from_file("storage.yaml")).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert f"    {line}\n" in text


@pytest.fixture(scope="module")
def attributes_read() -> dict[Path, set[str]]:
    """The names of all attributes that each module of the package reads, by its path."""
    return {
        path.relative_to(PACKAGE): {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
        }
        for path in PACKAGE.rglob("*.py")
    }


@pytest.mark.parametrize("key", [k for k in SETTINGS if len(k) == 2], ids=".".join)
def test_every_setting_is_read_somewhere(
    key: tuple[str, str], attributes_read: dict[Path, set[str]]
) -> None:
    attribute = {"schema": "schema_name"}.get(key[1], key[1])
    inside = key[0] == "postgres"  # `PostgresConfig.url()` and `connect_args()` read for others.
    readers = [
        path
        for path, names in attributes_read.items()
        if attribute in names
        and ("config" not in path.parts or (inside and path.name == "postgres_settings.py"))
    ]
    assert readers, f"nothing reads {'.'.join(key)}"
