"""The section `postgres` of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from sqlalchemy.engine import URL

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.field_types import (
    ApplicationName,
    ExistingFile,
    Host,
    Integer,
    Name,
    Parameters,
    Password,
    PrivateFile,
    RootCertificate,
    SchemaName,
    check_root_certificate,
)
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError, raise_config_error
from observatory_storage.config.read_server import read_server_fields
from observatory_storage.config.urls import (
    FIELD_OF_PARAMETER,
    is_socket,
    parse_database_url,
    split_hosts,
)
from observatory_storage.errors import ConfigError

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

LayoutName = Literal["plain", "citus"]

_INT_MAX = 2**31 - 1  # PostgreSQL's and libpq's integers have 32 bits.


class PostgresConfig(ConfigModel):
    """The connection to PostgreSQL.

    Example::

        PostgresConfig(host="db.internal", username="app", password="secret", schema="telemetry")
        PostgresConfig.from_url("postgresql://app:secret@db.internal/telemetry")

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("postgres",)

    host: Annotated[Host, Env("DB_HOST")] = Field(
        default="localhost",
        description="Host name, IP address or socket directory; or several: h1:5432,h2:5433.",
    )
    port: Annotated[Integer, Env("DB_PORT")] = Field(
        default=5432, ge=1, le=65535, description="Port of hosts that are given without a port."
    )
    database: Annotated[Name, Env("DB_NAME")] = Field(
        default="llm_observatory", description="Name of the database."
    )
    username: Annotated[Name, Env("DB_USER")] = Field(
        default="postgres", description="Role to connect as."
    )
    password: Annotated[Password | Callable[[], str] | None, Env("DB_PASSWORD")] = Field(
        default=None,
        description="Password; without one libpq looks into ~/.pgpass."
        " In Python it may be a function, called for each new connection.",
    )
    password_file: Annotated[ExistingFile | None, Env("DB_PASSWORD_FILE")] = Field(
        default=None,
        description="File that holds the password (a Docker or Kubernetes secret),"
        " read at each connection.",
    )
    ssl_mode: Annotated[SslMode, Env("DB_SSL_MODE")] = Field(
        default="prefer",
        description="disable, allow, prefer, require, verify-ca or verify-full.",
    )
    ssl_root_cert: Annotated[RootCertificate | None, Env("DB_SSL_ROOT_CERT")] = Field(
        default=None,
        description="Root certificates (PEM file) for verify-ca and verify-full, or system.",
    )
    ssl_cert: Annotated[ExistingFile | None, Env("DB_SSL_CERT")] = Field(
        default=None, description="Client certificate (PEM file); needs the key."
    )
    ssl_key: Annotated[PrivateFile | None, Env("DB_SSL_KEY")] = Field(
        default=None, description="Private key of the client certificate (file of mode 0600)."
    )
    application_name: Annotated[ApplicationName, Env("DB_APP_NAME")] = Field(
        default="observatory_storage", description="Name shown in pg_stat_activity."
    )
    # BaseModel has a method called `schema`.
    schema_name: Annotated[SchemaName, Env("DB_SCHEMA")] = Field(
        default="public", alias="schema", description="Schema that holds the tables."
    )
    layout: Annotated[LayoutName, Env("DB_LAYOUT")] = Field(
        default="plain",
        description="plain: one server has all tables; citus: Citus shards them over several.",
    )
    shard_count: Annotated[Integer, Env("DB_SHARD_COUNT")] = Field(
        default=8,
        ge=1,
        le=1024,
        description="Shards of each table when migrate distributes the tables over Citus.",
    )
    statement_timeout_ms: Annotated[Integer, Env("DB_STATEMENT_TIMEOUT_MS")] = Field(
        default=0,
        ge=0,
        le=_INT_MAX,
        description="Milliseconds after which a statement is cancelled; 0: never.",
    )
    parameters: Parameters = Field(
        default_factory=dict,
        description="Further libpq parameters, such as target_session_attrs.",
    )
    # The last field, since its check needs the others.
    read_url: Annotated[SecretStr | None, Env("DATABASE_READ_URL")] = Field(
        default=None,
        description="URL of the server that read-only units of work go to, such as a standby;"
        " parts that it omits are those of the primary.",
    )

    @field_validator("password_file")
    @classmethod
    def _one_password(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("password") is not None:
            raise RuleError("must not come together with password: give one of them", "password")
        return value

    @field_validator("ssl_root_cert")
    @classmethod
    def _root_certificate_fits(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "ssl_mode" in info.data:
            check_root_certificate(value, info.data["ssl_mode"])
        return value

    @field_validator("ssl_key")
    @classmethod
    def _key_with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "ssl_cert" in info.data and (value is None) != (info.data["ssl_cert"] is None):
            right = "be set too, since ssl_cert is" if value is None else "be set with ssl_cert"
            raise RuleError(f"must {right}: a certificate and its key belong together", "ssl_cert")
        return value

    @field_validator("read_url")
    @classmethod
    def _read_server_is_valid(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        if info.data.get("layout") == "citus":
            raise RuleError(
                "must be omitted with the layout citus: the position of a coordinator says nothing"
                " of its workers"
            )
        if len(info.data) == len(cls.model_fields) - 1:  # no other field has failed
            try:
                cls(**read_server_fields(value, info.data))
            except (ConfigError, ValueError) as error:
                raise RuleError(str(error)) from None
        return value

    def read_server(self) -> PostgresConfig | None:
        """The connection to the server of ``read_url``; None if there is none.

        What the URL omits is as for the primary: the database, the role with its password, the
        options of TLS and all other settings, but neither hosts nor ``target_session_attrs``.
        """
        if self.read_url is None:
            return None
        primary = {name: getattr(self, name) for name in type(self).model_fields}
        del primary["read_url"]
        return type(self)(**read_server_fields(self.read_url, primary))

    @property
    def schema(self) -> str:  # type: ignore[override]  # pydantic's method is deprecated
        """The schema that contains the tables; the same as ``schema_name``."""
        return self.schema_name

    @classmethod
    def from_url(cls, url: str | SecretStr, **fields: Any) -> Self:
        """Create the configuration from a URL.

        Args:
            url: ``postgresql://user:password@host:5432/database``, as in ``DATABASE_URL``.
            **fields: settings that a URL does not contain, such as ``schema``. They take
                precedence over the URL.

        Raises:
            ConfigError: the URL or a field is invalid. The message does not quote the URL.
        """
        # Tools that print local variables must not find a secret in this frame.
        url = url if isinstance(url, SecretStr) else SecretStr(url)
        if isinstance(fields.get("password"), str):
            fields["password"] = SecretStr(fields["password"])
        problems: list[str] = []
        values: dict[str, Any] = {}
        try:
            found = parse_database_url(url.get_secret_value())
        except ValueError as error:
            problems = [f"the URL (its value is not shown): {error}"]
        else:
            for parameter, value in found.items():
                key = FIELD_OF_PARAMETER.get(parameter, ("postgres", "parameters", parameter))
                if key[0] != "postgres":
                    problems.append(f"{parameter} in the URL: belongs to {'.'.join(key)}")
                elif len(key) == 2:
                    values[key[1]] = value
                else:
                    values.setdefault(key[1], {})[key[2]] = value
        raise_config_error(problems)
        return cls(**(values | fields))

    def url(self) -> URL:
        """The URL for ``sqlalchemy.create_engine``, with parameters of libpq in its query.

        Secret parameters are not in it, since SQLAlchemy hides the password of a URL but not its
        query. `connect_args` returns them.
        """
        hosts = split_hosts(self.host)
        query = {name: v for name, v in self.parameters.items() if isinstance(v, str)}
        query |= {"application_name": self.application_name, "sslmode": self.ssl_mode}
        for name, file in (
            ("sslrootcert", self.ssl_root_cert),
            ("sslcert", self.ssl_cert),
            ("sslkey", self.ssl_key),
        ):
            if file is not None:
                query[name] = str(file)
        host: str | None = hosts[0][0]
        port: int | None = self.port
        if len(hosts) > 1 or is_socket(hosts[0][0]):
            # A URL can name several hosts, or a socket, only in its query.
            query["host"] = ",".join(name for name, _ in hosts)
            query["port"] = ",".join(number or str(self.port) for _, number in hosts)
            host = port = None
        return URL.create(
            "postgresql+psycopg",
            username=self.username,
            password=self._fixed_password(),
            host=host,
            port=port,
            database=self.database,
            query=query,
        )

    def expiring_password(self) -> str | None:
        """The password for a new connection, from the function or the file; None if neither is set.

        Raises:
            ConfigError: the file cannot be read, or the function gives no text.
        """
        if self.password_file is not None:
            try:
                # An editor or `echo` ends the file with a line break.
                return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                problem = getattr(error, "strerror", None) or "must be UTF-8 text"
                raise ConfigError(
                    f"postgres.password_file: {self.password_file}: {problem}"
                ) from None
        if callable(self.password):
            password = self.password()
            if not isinstance(password, str):
                raise ConfigError(
                    f"postgres.password: the function must give text, not {type(password).__name__}"
                )
            return password
        return None

    def _fixed_password(self) -> str | None:
        return self.password.get_secret_value() if isinstance(self.password, SecretStr) else None

    def connect_args(self) -> dict[str, str]:
        """The secret libpq parameters, for ``create_engine(url, connect_args=...)``."""
        return {
            name: value.get_secret_value()
            for name, value in self.parameters.items()
            if isinstance(value, SecretStr)
        }
