"""Parses URLs: those of PostgreSQL as libpq does, those of Redis as redis-py does.

Errors never quote the URL, since a badly encoded password can appear in any part of it.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from psycopg import pq
from pydantic import SecretStr

from observatory_storage.config.fields import Key

# Parameters of libpq that are settings of this package. All others are passed to libpq.
FIELD_OF_PARAMETER: dict[str, Key] = {
    "host": ("postgres", "host"),
    "port": ("postgres", "port"),
    "dbname": ("postgres", "database"),
    "user": ("postgres", "username"),
    "password": ("postgres", "password"),
    "sslmode": ("postgres", "ssl_mode"),
    "sslrootcert": ("postgres", "ssl_root_cert"),
    "sslcert": ("postgres", "ssl_cert"),
    "sslkey": ("postgres", "ssl_key"),
    "application_name": ("postgres", "application_name"),
    "connect_timeout": ("pool", "connect_timeout_secs"),
    # Prisma's, which hosting services put into their URLs.
    "schema": ("postgres", "schema"),
    "connection_limit": ("pool", "max_connections"),
    "pool_timeout": ("pool", "acquire_timeout_secs"),
}
# Parameters of other clients that are ignored, because they change nothing here. This package works
# through pgbouncer as it is, prepares no statements, and reads the server's replies with libpq.
_OF_OTHER_CLIENTS = frozenset(
    (
        *("pgbouncer", "statement_cache_size", "prepared_statement_cache_size"),
        *("prepared_statements", "prepareThreshold", "uselibpqcompat", "supa", "workaround"),
    )
)
# Values of other clients as libpq's values, and advice for parameters that cannot be converted.
_SSL_OF_OTHER_CLIENTS = {"true": "require", "1": "require", "no-verify": "require"}
_INSTEAD = {
    "sslaccept": "write sslmode=verify-full for strict, sslmode=require for accept_invalid_certs",
    "currentSchema": "write schema=…, or set DB_SCHEMA",
    "search_path": "write schema=…, or set DB_SCHEMA",
    "socket_timeout": "set DB_STATEMENT_TIMEOUT_MS",
    "unix_sock": "write host=/directory/of/the/socket",
}
# Parameters that identify the user and the server. Errors do not quote them, as said above.
IDENTITY = ("host", "port", "dbname", "user", "password")

_DEFAULT_PORT = "5432"
_SCHEMES = ("postgresql", "postgres")
# The drivers of SQLAlchemy's URLs. All of them reach the same server; this package uses psycopg.
_DRIVERS = ("psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "asyncpg", "pg8000", "aiopg")
_ENCODE = "write @ as %40, : as %3A, / as %2F, ? as %3F and % as %25 in the user name and password"
# The user name and password end at the first @ unless a / comes before, as in libpq.
_REST = re.compile(
    r"(?:(?P<userinfo>[^@/]*)@)?(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_SOCKET = re.compile(r"(.*?)(?::([0-9]{1,5}))?", re.DOTALL)
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")


@cache
def libpq_parameters() -> dict[str, bool]:
    """The connection parameters that this libpq knows, and whether each is secret.

    libpq itself marks the parameters that a program should not display.
    """
    return {option.keyword.decode(): bool(option.dispchar) for option in pq.Conninfo.get_defaults()}


def parse_database_url(url: str) -> dict[str, Any]:
    """The parameters of libpq that the URL sets, by name.

    Several hosts are returned as ``h1:5432,h2:5433`` in ``host``. A host without a port gets the
    default port, since a port that is set elsewhere belongs to another host.

    Raises:
        ValueError: the URL is not a valid URL of PostgreSQL. The message does not quote it.
    """
    scheme, separator, rest = _unquoted(url.strip()).partition("://")
    if not separator:
        raise ValueError("must be a URL such as postgresql://user:password@host:5432/database")
    name, plus, driver = scheme.lower().partition("+")
    if name not in _SCHEMES or (plus and driver not in _DRIVERS):
        raise ValueError(_wrong_scheme(scheme))
    match = _REST.fullmatch(rest)
    if match is None:
        raise ValueError(f"cannot be read: {_ENCODE}")
    # If no user name precedes the host, a later @ comes from a password with an unencoded /.
    later = [match["hosts"], match["database"] or "", "" if match["userinfo"] else match["query"]]
    if any("@" in part for part in later if part):
        raise ValueError(f"has an @ or / that is not percent-encoded: {_ENCODE}")
    found: dict[str, Any] = {}
    user, colon, password = (match["userinfo"] or "").partition(":")
    found["user"] = _decode(user, "user name")
    if colon:
        found["password"] = _decode(password, "password")
    found["dbname"] = _decode(match["database"] or "", "database name")
    # SQLAlchemy encodes a blank in the query as +. To libpq, + is a plus sign.
    blank = "%20" if "+" in scheme else "+"
    query = _parse_query((match["query"] or "").replace("+", blank))
    found |= _address(match["hosts"], query.pop("host", ""), query.pop("port", ""))
    found = {name: value for name, value in {**found, **query}.items() if value}
    secrets = libpq_parameters()
    return {name: SecretStr(value) if secrets.get(name) else value for name, value in found.items()}


def _unquoted(url: str) -> str:
    """The URL without quotes around it, which a shell takes away and ``--env-file`` does not."""
    return url[1:-1].strip() if len(url) > 1 and url[0] == url[-1] and url[0] in "'\"" else url


def split_hosts(text: str) -> list[tuple[str, str]]:
    """Hosts with their ports, or "" without one, from ``h1:5432,[::1]:5433,/socket/directory``.

    Raises:
        ValueError: a host is empty or has invalid characters.
    """
    if _is_ipv6(text):
        return [(text, "")]
    parts = text.split(",")
    if len(parts) == 1 and is_socket(text) and text.count(":") > 1:
        return [(text, "")]  # Cloud SQL names its sockets /cloudsql/project:region:instance
    hosts = []
    for part in parts:
        match = (_SOCKET if is_socket(part) else _HOST).fullmatch(part)
        if match is None:
            raise ValueError(
                "must be host or host:port, with an IPv6 address in brackets: [::1]:5432"
            )
        name = match[1].strip("[]")
        if match[1].startswith("[") and not _is_ipv6(name):
            raise ValueError("must have an IPv6 address inside the brackets")
        if not name:
            raise ValueError("must not have an empty host name")
        if not is_socket(name) and re.search(r"[\s\x00-\x1f\x7f/@?#\\]", name):
            raise ValueError("must be a host name, an IP address or the directory of a socket")
        if match[2] and not 1 <= int(match[2]) <= 65535:
            raise ValueError("must have ports from 1 to 65535")
        hosts.append((name, match[2] or ""))
    return hosts


def is_socket(host: str) -> bool:
    """Whether the host is a Unix socket for libpq: a directory, or @ with an abstract name."""
    return host.startswith(("/", "@"))


def check_redis_url(url: str) -> str:
    """The URL in the form that redis-py accepts (``valkey://`` becomes ``redis://``).

    Raises:
        ValueError: the URL is not a valid URL of Redis. The message does not quote it.
    """
    url = url.strip()
    scheme, separator, rest = url.partition("://")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme.lower(), scheme.lower())
    if not separator or scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            "must begin with redis://, rediss:// (TLS), unix:// (socket), valkey:// or valkeys://"
        )
    try:
        parts = urlsplit(f"{scheme}://{rest}")
    except ValueError:  # the message of this error quotes the URL
        raise ValueError(f"has brackets or characters that no host has: {_ENCODE}") from None
    if parts.fragment or "@" in parts.path or parts.netloc.count("@") > 1:
        raise ValueError(f"has an @, / or # that is not percent-encoded (%23 is #): {_ENCODE}")
    for part in (parts.netloc, parts.path, parts.query):
        _decode(part, "URL")
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("must name the socket: unix:///run/redis.sock?db=0")
    else:
        _check_redis_address(parts.netloc.rpartition("@")[2])
        if not re.fullmatch(r"/?|/[0-9]+", parts.path):
            raise ValueError("must end in the number of a database, such as /0, or in nothing")
    return f"{scheme}://{rest}"


def _check_redis_address(address: str) -> None:
    match = _HOST.fullmatch(address)
    if match is None:
        raise ValueError("must name host:port, with an IPv6 address in brackets and a port number")
    if match[2] and not 1 <= int(match[2]) <= 65535:
        raise ValueError("must have a port from 1 to 65535")


def _wrong_scheme(scheme: str) -> str:
    right = "must begin with postgresql:// (or postgres://, postgresql+psycopg://)"
    if re.fullmatch(r"postgres(ql)?\+\w+", scheme, re.IGNORECASE):
        return f"{right}: there is no driver {scheme.partition('+')[2]} of PostgreSQL"
    if scheme.lower().startswith("jdbc:"):
        return f"{right}, not {scheme}://; user and password stand before the host"
    if scheme.lower().startswith("psql"):
        return f"{right}: leave out the command psql before it"
    # Anything longer is no scheme, and may be a piece of a secret.
    return f"{right}, not {scheme}://" if re.fullmatch(r"[A-Za-z:+]{1,20}", scheme) else right


def _parse_query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    unknown = []
    for pair in filter(None, text.split("&")):
        name, equals, value = pair.partition("=")
        name = _decode(name, "query")
        if name in _OF_OTHER_CLIENTS:
            continue
        if name == "ssl":  # libpq itself reads JDBC's ssl=true so.
            name, value = "sslmode", _SSL_OF_OTHER_CLIENTS.get(value, value)
        if name in _INSTEAD:
            raise ValueError(
                f"has the parameter {name!r}, which libpq does not know: {_INSTEAD[name]}"
            )
        if name not in libpq_parameters() and name not in FIELD_OF_PARAMETER:
            unknown.append(name)
        elif not equals:
            raise ValueError(f"has the parameter {name!r} without a value")
        elif name in found:
            raise ValueError(f"has the parameter {name!r} twice (several hosts: host=h1,h2)")
        else:
            found[name] = _decode(value, f"parameter {name!r}")
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"has parameters that libpq does not know: {names}")
    return found


def _address(authority: str, host: str, port: str) -> dict[str, str]:
    """Host and port from the authority of the URL and from its query, which takes precedence."""
    hosts: list[tuple[str, str]] = []
    if authority:
        for part in authority.split(","):
            match = _HOST.fullmatch(part)
            if match is None:
                raise ValueError(
                    "must have host:port between @ and /, the port a number and an IPv6 address "
                    f"in brackets; {_ENCODE}"
                )
            hosts.append((_decode(match[1].strip("[]"), "host"), match[2] or ""))
    ports = port.split(",") if port else [number for _, number in hosts]
    names = host.split(",") if host else [name for name, _ in hosts]
    if not any(names):
        if len(names) > 1:
            raise ValueError("must not have an empty host name")
        return {"port": ports[0]} if ports else {}
    if len(names) == 1 and len(ports) <= 1:
        return {"host": names[0], "port": (ports or [""])[0] or _DEFAULT_PORT}
    if len(ports) <= 1:
        return {
            "host": ",".join(map(_bracketed, names)),
            "port": (ports or [""])[0] or _DEFAULT_PORT,
        }
    if len(ports) != len(names):
        raise ValueError(f"has {len(ports)} ports for {len(names)} hosts; give one each, or one")
    joined = (
        f"{_bracketed(name)}:{number or _DEFAULT_PORT}"
        for name, number in zip(names, ports, strict=True)
    )
    return {"host": ",".join(joined)}


def _bracketed(name: str) -> str:
    return f"[{name}]" if _is_ipv6(name) else name


def _is_ipv6(name: str) -> bool:
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True


def _decode(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(f"has a % in the {what} without two hex digits after it: {_ENCODE}")
    decoded = unquote(text, errors="replace")
    if "\0" in decoded or "\ufffd" in decoded:
        raise ValueError(f"has bytes in the {what} that are not UTF-8 text")
    return decoded
