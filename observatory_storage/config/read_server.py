"""The server that read-only units of work go to: ``read_url``, completed by the primary's settings.

A streaming replica has the databases, roles and passwords of its primary, so its URL need not
repeat them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from observatory_storage.config.urls import FIELD_OF_PARAMETER, parse_database_url

__all__ = ["read_server_fields"]

# Parameters of libpq that tell which server is meant, or who connects.
_OF_SERVER: Final = frozenset(
    (
        *("target_session_attrs", "load_balance_hosts", "hostaddr", "service", "servicefile"),
        *("requirepeer", "sslsni"),
    )
)
# Who one is differs from host to host only if the URL says so.
_IDENTITY: Final = ("password", "password_file")


def read_server_fields(url: SecretStr, primary: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the `PostgresConfig` of the read server.

    Args:
        url: the URL of the read server, which takes precedence.
        primary: the fields of the primary.

    Raises:
        ValueError: the URL is not valid. The message does not quote it.
    """
    found = parse_database_url(url.get_secret_value())
    if "host" not in found:
        raise ValueError("must name a host, such as postgresql://replica:5432/database")
    fields = {name: value for name, value in primary.items() if name not in ("host", "port")}
    if found.get("user", fields.get("username")) != fields.get("username") or "password" in found:
        fields |= dict.fromkeys(_IDENTITY)
    parameters = {
        name: value
        for name, value in fields.get("parameters", {}).items()
        if name not in _OF_SERVER
    }
    for name, value in found.items():
        key = FIELD_OF_PARAMETER.get(name, ("postgres", "parameters"))
        if key == ("postgres", "schema"):
            if value != primary.get("schema_name"):
                raise ValueError("must not name another schema than that of the primary")
        elif key[0] != "postgres":
            raise ValueError(f"has {name}, which is the same for both servers: {'.'.join(key)}")
        elif key[1] == "parameters":
            parameters[name] = value
        else:
            fields[key[1]] = value
    return {**fields, "parameters": parameters}
