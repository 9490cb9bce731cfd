"""``dashboards``: write the Grafana dashboards that come with the package to files."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import click
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.text_table import Column, table

__all__ = ["command"]

_COLUMNS = (Column("FILE", keep=3), Column("TITLE", keep=2), Column("DATA SOURCE"))


@click.command("dashboards", cls=StorageCommand)
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write them into this folder, which is made if it is not there.",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, /, *, folder: Path | None) -> None:
    """List the dashboards for Grafana, or write them to files.

    Import a file in Grafana, or provision the folder. Existing files of the same names are
    overwritten. No database is needed.
    """
    output = state.output()
    shipped = sorted(files("observatory_storage").joinpath("grafana").iterdir(), key=str)
    listed = []
    for file in shipped:
        text = file.read_text(encoding="utf-8")
        dashboard = json.loads(text)
        path = Path(file.name)
        if folder is not None:
            path = folder / path
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise click.ClickException(f"{path}: {error.strerror}") from error
        source = next(
            variable["query"]
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "datasource"
        )
        listed.append({"file": str(path), "title": dashboard["title"], "data_source": source})
    if output.json:
        output.write_all(listed)
        return
    output.show(table(_COLUMNS, [tuple(each.values()) for each in listed]))
    if folder is None:
        output.show(Text("write them to files with --to FOLDER", style="dim"))
