"""Whether a request may be received: the hook of `otlp_app`, and one for tokens."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TypeAlias
from wsgiref.types import WSGIEnvironment

from observatory_storage.errors import ConfigError

__all__ = ["Authorize", "bearer_token"]

Authorize: TypeAlias = Callable[[WSGIEnvironment], bool]

_SCHEME = "bearer"


def bearer_token(*tokens: str) -> Authorize:
    """A hook for `otlp_app` that accepts requests with ``Authorization: Bearer <token>``.

    Example::

        app = otlp_app(pool, authorize=bearer_token(os.environ["OTLP_TOKEN"]))

    Exporters send the header if ``OTEL_EXPORTER_OTLP_HEADERS`` is
    ``Authorization=Bearer%20<token>``.

    Args:
        tokens: the tokens, each of which is accepted. With two of them, senders can change from one
            to the other.

    Raises:
        ConfigError: there is no token, or one is empty or is not a token in ASCII.
    """
    if not tokens or not all(_is_token(token) for token in tokens):
        # The tokens are not shown: they are secrets.
        raise ConfigError("token: must be one or more visible ASCII characters without blanks")
    accepted = [token.encode() for token in tokens]

    def authorize(environ: WSGIEnvironment) -> bool:
        scheme, _, given = str(environ.get("HTTP_AUTHORIZATION", "")).strip().partition(" ")
        if scheme.lower() != _SCHEME:
            return False
        token = given.strip().encode("utf-8", "replace")
        # All are compared, each in constant time, so that the time tells nothing of them.
        return any([hmac.compare_digest(token, one) for one in accepted])  # noqa: C419 - as said

    return authorize


def _is_token(value: object) -> bool:
    return isinstance(value, str) and value != "" and all("!" <= letter <= "~" for letter in value)
