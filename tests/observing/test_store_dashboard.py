"""Every query of the dashboard of the store asks for metrics and labels that the hook exposes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import promql_parser
import pytest
from cheroot.wsgi import Server

import observatory_storage
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.health import create_app
from observatory_storage.pool import StoragePool
from tests.observing.metrics_text import samples
from tests.observing.store_metrics import use, used
from tests.servers import Server as PostgresServer

PATH = Path(observatory_storage.__file__).parent / "grafana" / "store.json"
DASHBOARD: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}


@pytest.fixture(scope="module")
def pool(postgres_server: PostgresServer, migrated_template: str) -> Iterator[StoragePool]:
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool, used(pool) as (pool_used, _):
            yield pool_used


@pytest.fixture(scope="module")
def exposed(pool: StoragePool) -> Mapping[str, set[str]]:
    """The labels of the exposed samples, by name."""
    (hook,) = pool.hooks.registered
    labels: dict[str, set[str]] = {}
    for name, values in samples(hook.exposition()[0]):  # type: ignore[union-attr]
        labels.setdefault(name, set()).update(dict(values))
    return labels


def nodes(expression: Any) -> Iterator[Any]:
    """All expressions of an expression."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vs", "vector_selector"):
        child = getattr(expression, name, None)
        if child is not None:
            yield from nodes(child)
    for child in getattr(expression, "args", ()):
        yield from nodes(child)


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_asks_for_what_is_exposed(title: str, exposed: Mapping[str, set[str]]) -> None:
    selected = 0
    for node in nodes(promql_parser.parse(QUERIES[title])):
        if isinstance(node, promql_parser.VectorSelector):
            selected += 1
            assert node.name in exposed
            assert {each.name for each in node.matchers.matchers} <= exposed[node.name or ""]
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            within = [
                each.name
                for each in nodes(node.expr)
                if isinstance(each, promql_parser.VectorSelector)
            ]
            for name in within:
                assert set(node.modifier.labels) <= exposed[name or ""]
    assert selected


def test_every_metric_is_shown(exposed: Mapping[str, set[str]]) -> None:
    shown = " ".join(QUERIES.values())
    own = {name for name in exposed if name.startswith("storage_")}
    suffixes = ("_bucket", "_count", "_sum", "_created")
    families = {
        next((name.removesuffix(one) for one in suffixes if name.endswith(one)), name)
        for name in own
    }
    assert [name for name in sorted(families) if name not in shown] == []


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes the target each second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (Debian's package is prometheus)")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        f"- {{job_name: store, static_configs: [{{targets: ['{target}']}}]}}\n"
    )
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def serving(pool: StoragePool) -> Iterator[str]:
    """The address at which the application of the pool is served."""
    server = Server(("127.0.0.1", 0), create_app(pool))
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield "{}:{}".format(*server.bind_addr[:2])
    finally:
        server.stop()
        thread.join()


def asked(address: str, expression: str) -> list[Any]:
    """The result of an instant query; nothing while Prometheus is not ready."""
    try:
        url = f"{address}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(url, timeout=10) as answer:
            content = json.load(answer)
    except URLError:
        return []
    assert content["status"] == "success"
    result: list[Any] = content["data"]["result"]
    return result


def test_prometheus_answers_every_query(pool: StoragePool, tmp_path: Path) -> None:
    with serving(pool) as target, prometheus(target, tmp_path) as address:
        deadline = time.monotonic() + 60
        missing = dict(QUERIES)
        while missing:
            use(pool)  # rates need values that change between scrapes
            missing = {
                title: expression
                for title, expression in missing.items()
                if not any(each["value"][1] != "NaN" for each in asked(address, expression))
            }
            assert time.monotonic() < deadline, missing
            time.sleep(0.5)


def test_grafana_finds_the_data_source() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["query"]) == ("datasource", "prometheus")
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
