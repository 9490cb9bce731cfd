"""The mode is set for a store or a writer, and needs Zstandard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from observatory_storage import (
    ConfigError,
    CopyWriter,
    PayloadsConfig,
    StorageConfig,
    StoragePool,
    TraceWriter,
    ValidationError,
    WriterConfig,
)

COMPRESSED: Any = "compressed"  # type checkers want a PayloadsConfig


def test_the_mode_stands_for_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = StorageConfig(payloads=PayloadsConfig(mode="compressed"))
    assert StorageConfig(payloads=COMPRESSED) == expected
    for name, content in (
        ("a.yaml", "payloads: compressed"),
        ("a.toml", 'payloads = "compressed"'),
        ("a.json", '{"payloads": "compressed"}'),
        ("b.yaml", "payloads: {mode: compressed}"),
    ):
        (tmp_path / name).write_text(content)
        assert StorageConfig.from_file(tmp_path / name) == expected
    monkeypatch.setenv("OBSERVATORY_PAYLOADS", "inline")
    assert StorageConfig.from_file(tmp_path / "a.yaml") == StorageConfig()


@pytest.mark.parametrize("variable", ["OBSERVATORY_PAYLOADS", "OBSERVATORY_PAYLOADS_MODE"])
def test_the_mode_has_two_variables(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "compressed")
    assert StorageConfig.from_env().payloads == PayloadsConfig(mode="compressed")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("payloads: zipped", "payloads.mode = 'zipped': must be 'inline' or 'compressed'"),
        ("payloads: 17", "payloads: must be a group of keys"),
        ("pool: many", "pool: must be a group of keys"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "storage.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=told):
        StorageConfig.from_file(path)


def test_writers_refuse_other_modes(pool: StoragePool) -> None:
    mode: Any = "zipped"
    with pytest.raises(ValidationError, match="payloads='zipped'"):
        WriterConfig(payloads=mode)
    with pytest.raises(ValidationError, match="payloads='zipped'"):
        CopyWriter(pool, payloads=mode)


def test_without_zstandard_nothing_begins_to_compress(
    pool: StoragePool, without_zstd: None
) -> None:
    told = r"pip install 'observatory-storage\[zstd\]'"
    with pytest.raises(ConfigError, match=told):
        StoragePool(StorageConfig(postgres=pool.config.postgres, payloads=COMPRESSED))
    with pytest.raises(ConfigError, match=told):
        StoragePool.from_engine(pool.engine, StorageConfig(payloads=COMPRESSED))
    with pytest.raises(ConfigError, match=told):
        CopyWriter(pool, payloads="compressed")
    with pytest.raises(ConfigError, match=told):
        TraceWriter(pool, WriterConfig(payloads="compressed"))
    CopyWriter(pool)
    TraceWriter(pool).close()
