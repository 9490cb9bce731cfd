"""Programs that know nothing of the package, started by OpenTelemetry's own command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from observatory_storage import StoragePool
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, TraceSpan
from tests.otel.test_configure import found
from tests.otel.test_exporters import named_spans
from tests.pages import ROOT

APPLICATION = """
import logging
from opentelemetry import metrics, trace

with trace.get_tracer("app").start_as_current_span("request"):
    logging.getLogger("app").warning("sold out")
metrics.get_meter("app").create_counter("orders").add(3)
"""
IN_FLASK = """
import logging, sys
from flask import Flask
from observatory_storage.otel import configure

if "configured" in sys.argv:
    logging.basicConfig(format="%(name)s says: %(message)s")
configure(service_name="shop")
app = Flask("shop")

@app.get("/")
def fail():
    logging.getLogger("shop.orders").warning("sold out")
    raise LookupError("no such order")

assert app.test_client().get("/").status_code == 500
"""
# Where opentelemetry-instrument is started after lines of exports.
PAGES = ["docs/otel-exporters.md", "docs/instrumentations.md", "examples/otel/chat.py"]
# The instrumentations that are installed here, but for the one that exports log records. They take
# seconds to import.
NEEDLESS = {found.name for found in entry_points(group="opentelemetry_instrumentor")} - {"logging"}
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
FORKING = """
import multiprocessing
from opentelemetry import trace
from observatory_storage.otel import configure

def work(name):
    trace.get_tracer("app").start_span(name).end()

if __name__ == "__main__":
    configure(metrics=False, logs=False)
    work("before")
    children = [
        multiprocessing.get_context("fork").Process(target=work, args=(f"child {n}",))
        for n in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    work("after")
"""


def run(
    script: str, folder: Path, *command: str, arguments: Sequence[str] = (), **environment: str
) -> str:
    path = folder / "application.py"
    path.write_text(script)
    done = subprocess.run(
        [*command, sys.executable, str(path), *arguments],
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(NEEDLESS),
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_documented_variables_store_all_three_signals(
    pool: StoragePool, database_url: str, tmp_path: Path, page: str
) -> None:
    exports = re.findall(
        r"((?:^ *export .*\n)+) *opentelemetry-instrument",
        (ROOT / page).read_text("utf-8"),
        re.MULTILINE,
    )
    assert len(exports) == 1
    script = tmp_path / "start.sh"
    script.write_text(f'{exports[0]}exec opentelemetry-instrument "$@"\n')
    said = run(
        APPLICATION,
        tmp_path,
        *("sh", str(script)),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        DATABASE_URL=database_url,
    )
    assert said == ""
    assert found(pool, TraceSpan.name) == [("request",)]
    assert found(pool, LogRecord.body) == [("sold out",)]
    assert found(pool, Metric.name) == [("orders",)]


@pytest.mark.parametrize(("exporters", "counts"), [("postgresql", (3, 3)), ("none", (0, 2))])
def test_configure_stores_nothing_twice(
    pool: StoragePool,
    database_url: str,
    tmp_path: Path,
    exporters: str,
    counts: tuple[int, int],
) -> None:
    said = run(
        """
import logging
from observatory_storage.otel import configure

telemetry = configure(service_name="shop")
"""
        + APPLICATION
        + "assert telemetry.force_flush()",
        tmp_path,
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        DATABASE_URL=database_url,
        OTEL_TRACES_EXPORTER=exporters,
        OTEL_METRICS_EXPORTER=exporters,
        OTEL_LOGS_EXPORTER=exporters,
        OTEL_METRIC_EXPORT_INTERVAL="600000",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sqlalchemy",
    )
    assert said.count("already: configure() adds none") == counts[0]
    assert found(pool, TraceSpan.name) == [("request",)]
    assert found(pool, LogRecord.body) == [("sold out",)]
    assert found(pool, Metric.name) == [("orders",)]
    # One of `force_flush`, and one of each who shuts down.
    assert len(found(pool, MetricDataPoint.value)) == counts[1]


def test_a_missing_database_url_is_told_at_the_start(tmp_path: Path) -> None:
    said = run(
        APPLICATION,
        tmp_path,
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        OTEL_TRACES_EXPORTER="postgresql",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    assert "DATABASE_URL: is not set" in said


def test_what_is_lost_is_told_on_the_console(tmp_path: Path) -> None:
    # Root has a handler, which exports: `logging` itself would not write to stderr any more.
    said = run(
        APPLICATION,
        tmp_path,
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        DATABASE_URL=NOWHERE,
        OTEL_TRACES_EXPORTER="postgresql",
        OTEL_METRICS_EXPORTER="postgresql",
        OTEL_LOGS_EXPORTER="postgresql",
        DB_RETRY_MAX_ATTEMPTS="1",
    )
    for items in ("spans", "data points", "log records"):
        (line,) = [line for line in said.splitlines() if f"rows of {items} could not" in line]
        assert "lost when the process ends" in line


def test_a_spool_of_the_environment_keeps_what_cannot_be_written(tmp_path: Path) -> None:
    said = run(
        APPLICATION,
        tmp_path,
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        DATABASE_URL=NOWHERE,
        OTEL_TRACES_EXPORTER="postgresql",
        OTEL_METRICS_EXPORTER="postgresql",
        OTEL_LOGS_EXPORTER="postgresql",
        DB_RETRY_MAX_ATTEMPTS="1",
        OBSERVATORY_SPOOL_DIR=str(tmp_path / "spool"),
    )
    assert "lost" not in said
    spooled = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
    for text in (b"request", b"orders", b"sold out"):
        assert text in spooled


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [((), "sold out\n"), (("configured",), "shop.orders says: sold out\n")],
    ids=["no handler", "basicConfig"],
)
def test_warnings_and_tracebacks_of_an_application_stay_on_its_console(
    pool: StoragePool, database_url: str, tmp_path: Path, arguments: tuple[str, ...], shown: str
) -> None:
    said = run(IN_FLASK, tmp_path, arguments=arguments, DATABASE_URL=database_url)
    assert said.startswith(shown)
    assert said.count("sold out") == 1
    assert said.count("LookupError: no such order") == 1
    assert found(pool, LogRecord.body) == [("Exception on / [GET]",), ("sold out",)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_spans_of_forked_children_are_stored_once(
    pool: StoragePool, database_url: str, tmp_path: Path
) -> None:
    run(FORKING, tmp_path, DATABASE_URL=database_url)
    assert named_spans(pool) == ["after", "before", "child 0", "child 1", "child 2"]


def test_without_the_extra_the_import_says_what_to_install(tmp_path: Path) -> None:
    said = run(
        """
import sys

sys.modules["opentelemetry"] = None
import observatory_storage
from observatory_storage import ConfigError
try:
    import observatory_storage.otel
except ConfigError as error:
    print(error, file=sys.stderr)
""",
        tmp_path,
    )
    assert "pip install 'observatory-storage[otel]'" in said
