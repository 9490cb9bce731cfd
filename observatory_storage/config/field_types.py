"""The types of the fields, with the rules that a value must satisfy beyond its Python type."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from psycopg import pq
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from observatory_storage.config.problems import RuleError, shown_key
from observatory_storage.config.urls import (
    FIELD_OF_PARAMETER,
    check_redis_url,
    libpq_parameters,
    split_hosts,
)

_IDENTIFIER_BYTES = 63  # PostgreSQL's NAMEDATALEN - 1


def _no_boolean(value: Any) -> Any:
    # In Python True equals 1, and YAML reads "yes" as True.
    if isinstance(value, bool):
        raise RuleError("must be a number, not true or false")
    return value


def _name(value: str) -> str:
    if not value.strip():
        raise RuleError("must not be empty")
    if not value.isprintable() or value != value.strip():
        raise RuleError("must have no control characters and no blanks around it")
    if "://" in value:
        raise RuleError("must be a name; a URL goes in DATABASE_URL or PostgresConfig.from_url()")
    return value


def _host(value: str) -> str:
    hosts = split_hosts(_name(value))
    if len(hosts) == 1:
        name, port = hosts[0]
        if port:
            raise RuleError("must not have the port with it: that is a setting of its own")
        return name
    return value


def _application_name(value: str) -> str:
    if not value.isascii() or len(value) > _IDENTIFIER_BYTES:
        raise RuleError(
            f"must be at most {_IDENTIFIER_BYTES} ASCII characters: the server cuts more"
        )
    return value


def _schema_name(value: str) -> str:
    if len(value.encode()) > _IDENTIFIER_BYTES:
        raise RuleError(
            f"must be at most {_IDENTIFIER_BYTES} bytes long, as PostgreSQL's names are"
        )
    if value.startswith("pg_") or value == "information_schema":
        raise RuleError("must not be one of PostgreSQL's own schemas (pg_…, information_schema)")
    return value


def _not_empty(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise RuleError("must not be empty")
    return value


def _existing_file(path: Path) -> Path:
    try:
        path = path.expanduser()
        exists = path.is_file()
    except (OSError, RuntimeError):  # a folder without permission; an unknown home directory
        exists = False
    if not exists:
        raise RuleError("must be a file that exists")
    if not os.access(path, os.R_OK):
        raise RuleError("must be a file that this process may read")
    return path


def _private_file(path: Path) -> Path:
    path = _existing_file(path)
    if os.name == "posix":
        # libpq has the same rule, but would apply it only at the first connection.
        status = path.stat()
        allowed = 0o740 if status.st_uid == 0 else 0o700
        if stat.S_IMODE(status.st_mode) & 0o777 & ~allowed:
            raise RuleError("must not be open to group or others: chmod 600")
    return path


def _root_certificate(path: Path) -> Path:
    return path if str(path) == "system" else _existing_file(path)


def _redis_url(url: SecretStr) -> SecretStr:
    return SecretStr(check_redis_url(url.get_secret_value()))


def check_root_certificate(path: Path | None, ssl_mode: str) -> None:
    """Refuse verify modes without a root certificate, and `system` without verify-full."""
    if path is None and ssl_mode.startswith("verify-") and not _default_root_certificate():
        raise RuleError(
            f"must be a file with root certificates, or system with verify-full, "
            f"for ssl_mode {ssl_mode}",
            "ssl_mode",
        )
    if path is not None and str(path) == "system" and ssl_mode != "verify-full":
        raise RuleError(f"can be system only with ssl_mode verify-full, not {ssl_mode}", "ssl_mode")


def _default_root_certificate() -> bool:
    # libpq uses PGSSLROOTCERT if it is set, else the file in the home directory.
    if any(o.keyword == b"sslrootcert" and o.val for o in pq.Conninfo.get_defaults()):
        return True
    try:
        _existing_file(Path("~/.postgresql/root.crt"))
    except RuleError:
        return False
    return True


def _parameters(value: object) -> dict[str, str | SecretStr]:
    """Further parameters of libpq by name, with secret ones as SecretStr."""
    if not isinstance(value, Mapping):
        raise RuleError("must be a group of libpq's connection parameters")
    checked: dict[str, str | SecretStr] = {}
    wrong = []
    for name, given in value.items():
        try:
            checked[str(name)] = _parameter(str(name), given)
        except RuleError as error:
            wrong.append(str(error))
    if wrong:
        raise RuleError("; ".join(wrong))
    return checked


def _parameter(name: str, value: object) -> str | SecretStr:
    known = libpq_parameters()
    if name in FIELD_OF_PARAMETER:
        raise RuleError(f"must not have {name}: set {'.'.join(FIELD_OF_PARAMETER[name])} instead")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise RuleError(f"must not have {shown_key(name)}, which libpq does not know{advice}")
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str) or not text or "\0" in text:
        raise RuleError(f"must have text or a whole number for {name}")
    return SecretStr(text) if known[name] else text


def _without_nul(value: SecretStr) -> SecretStr:
    if "\0" in value.get_secret_value():
        raise RuleError("must have no NUL character")
    return value


Integer = Annotated[int, BeforeValidator(_no_boolean)]
Fraction = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Name = Annotated[str, AfterValidator(_name)]
Host = Annotated[str, AfterValidator(_host)]
ApplicationName = Annotated[Name, AfterValidator(_application_name)]
SchemaName = Annotated[Name, AfterValidator(_schema_name)]
Directory = Annotated[Path, BeforeValidator(_not_empty)]
ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
PrivateFile = Annotated[Path, AfterValidator(_private_file)]
RootCertificate = Annotated[Path, AfterValidator(_root_certificate)]
Password = Annotated[SecretStr, AfterValidator(_without_nul)]
Parameters = Annotated[dict[str, str | SecretStr], BeforeValidator(_parameters)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


def _aliases(value: Any) -> Any:
    if isinstance(value, str):  # a variable
        try:
            value = json.loads(value)
        except ValueError:
            raise RuleError('must be JSON, such as {"user_id": ["app.user"]}') from None
    if not isinstance(value, Mapping):
        return value
    aliases = {}
    for column, given in value.items():
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, (list, tuple)) or not all(
            isinstance(name, str) and name for name in names
        ):
            raise RuleError(f"must list names of attributes for {column}, such as [app.user]")
        aliases[column] = tuple(names)
    return aliases


Aliases = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_aliases)]
