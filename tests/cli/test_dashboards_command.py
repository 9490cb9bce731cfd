"""``dashboards`` writes the files that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import observatory_storage
from tests.commands import Run

SHIPPED = sorted((Path(observatory_storage.__file__).parent / "grafana").glob("*.json"))


def test_the_dashboards_are_written_to_files(run_on_filled: Run, tmp_path: Path) -> None:
    assert run_on_filled("dashboards", "--to", "made/here").code == 0
    written = sorted((tmp_path / "made" / "here").iterdir())
    assert [path.name for path in written] == [path.name for path in SHIPPED] != []
    for one, other in zip(written, SHIPPED, strict=True):
        assert one.read_bytes() == other.read_bytes()
    again = run_on_filled("dashboards", "--to", "made/here", "--json")
    assert [line["file"] for line in again.lines] == [f"made/here/{p.name}" for p in SHIPPED]


def test_without_a_folder_they_are_listed(run_on_filled: Run, tmp_path: Path) -> None:
    listed = run_on_filled("dashboards")
    assert all(path.name in listed.out for path in SHIPPED)
    assert "--to FOLDER" in listed.out
    assert list(tmp_path.iterdir()) == []
    titles = [json.loads(path.read_text())["title"] for path in SHIPPED]
    assert [line["title"] for line in run_on_filled("dashboards", "--json").lines] == titles


def test_a_folder_that_cannot_be_written_is_named(run_on_filled: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    refused = run_on_filled("dashboards", "--to", "taken/below")
    assert refused.code == 1
    assert "taken/below" in refused.err
