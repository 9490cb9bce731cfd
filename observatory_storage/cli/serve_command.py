"""``serve``: receives OTLP over HTTP until it is asked to end."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import click
from rich.text import Text

from observatory_storage.cli.common_options import State, StorageCommand, common_options
from observatory_storage.cli.console import new_console
from observatory_storage.errors import ConfigError
from observatory_storage.health import create_app
from observatory_storage.health_app import PATHS
from observatory_storage.hooks import PrometheusHook
from observatory_storage.otlp.compression import MAX_BODY_BYTES
from observatory_storage.web import bearer_token, otlp_app

__all__ = ["command"]


class _ServeCommand(StorageCommand):
    """A command that runs for long: what it refuses is told in its log."""

    default_log_level = "warning"


@click.command("serve", cls=_ServeCommand)
@click.option("--otlp", is_flag=True, help="Receive OTLP: /v1/traces, /v1/metrics and /v1/logs.")
@click.option(
    "--health",
    is_flag=True,
    help="Also answer /health, /health/live, /health/ready and /metrics, without a token.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; 0.0.0.0 is all of them.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4318,
    show_default=True,
    help="The port; 0 is any that is free.",
)
@click.option(
    "--token",
    envvar="OTLP_TOKEN",
    show_envvar=True,
    help="Accept only requests with `Authorization: Bearer TOKEN`. Other users of the machine can"
    " read an option, so set the variable instead.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(min=1),
    default=MAX_BODY_BYTES,
    show_default=True,
    help="The bound on a request, before and after decompression.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many requests are handled at once. Each needs a connection to PostgreSQL.",
)
@common_options
@click.pass_obj
def command(
    state: State,
    /,
    *,
    otlp: bool,
    health: bool,
    host: str,
    port: int,
    token: str | None,
    max_body_bytes: int,
    threads: int,
) -> None:
    """Receive OTLP over HTTP, and store it.

    Point OTEL_EXPORTER_OTLP_ENDPOINT of applications and collectors at it. It ends on SIGTERM and
    Ctrl-C, after the running requests.
    """
    if not otlp:
        raise click.UsageError("say what to serve: --otlp")
    serve = _server()
    authorize = None if token is None else bearer_token(token)

    def started(url: str) -> None:
        token_shown = "without a token" if authorize is None else "with a token"
        state.output().show(Text(f"receiving OTLP at {url} {token_shown}; Ctrl-C ends it"))
        if authorize is None and not _is_loopback(host):
            warning = "anybody who reaches this address can store telemetry: set OTLP_TOKEN"
            console = new_console(stderr=True)
            console.print(Text("warning: ", style="bold yellow").append(warning, style=""))

    with state.pool() as pool:
        app = otlp_app(pool, authorize=authorize, max_body_bytes=max_body_bytes)
        if health:
            pool.add_hook(PrometheusHook())
            app = _beside(create_app(pool), app)
        try:
            serve(app, host, port, threads=threads, started=started)
        except OSError as error:
            raise click.ClickException(f"cannot listen on {host}:{port}: {error}") from error


def _server() -> Callable[..., None]:
    try:
        from observatory_storage.web.otlp_server import serve
    except ModuleNotFoundError as error:
        rule = "serving needs the extra: pip install 'observatory-storage[serve]'"
        raise ConfigError(rule) from error
    return serve


def _beside(health: WSGIApplication, otlp: WSGIApplication) -> WSGIApplication:
    """An application that answers the paths of both."""

    def dispatch(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        app = health if environ.get("PATH_INFO") in PATHS else otlp
        return app(environ, start_response)

    return dispatch


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
