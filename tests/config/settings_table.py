"""``python -m tests.config.settings_table`` writes the table of all settings into its page."""

from __future__ import annotations

from datetime import timedelta

from observatory_storage.config import Setting, StorageConfig, settings_of
from observatory_storage.config.durations import duration_text
from tests.benchmarks.guide import filled
from tests.pages import DOCS

PAGE = DOCS / "configuration.md"
SECTION = "settings"


def default_text(setting: Setting) -> str:
    """The default as text, as in a file."""
    if setting.default is None or setting.default in ({}, ()):
        return ""
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    if isinstance(setting.default, timedelta):
        return duration_text(setting.default)
    return str(setting.default).removesuffix(".0")


def table() -> str:
    """A row for each setting of the models, in the order of their fields."""
    lines = ["| Key in a file | Variable | Default | Meaning |", "|---|---|---|---|"]
    for key, setting in settings_of(StorageConfig).items():
        variables = ", ".join(f"`{name}`" for name in setting.variables) or "in `DATABASE_URL`"
        default = f"`{text}`" if (text := default_text(setting)) else "none"
        lines.append(f"| `{'.'.join(key)}` | {variables} | {default} | {setting.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    assert filled(PAGE, SECTION, table()), f"{PAGE} has no marks of the section {SECTION}"
