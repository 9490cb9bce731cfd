"""Settings of certificates and keys, which are checked with the files that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from observatory_storage.config import PostgresConfig, StorageConfig
from tests.config.conftest import Environment, problems


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    (tmp_path / "file.pem").write_text("certificate")
    (tmp_path / "file.pem").chmod(0o600)
    return str(tmp_path / "file.pem")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_verify_modes_need_root_certificates(
    environment: Environment, certificate: str, tmp_path: Path, mode: str
) -> None:
    environment(DB_SSL_MODE=mode)
    message = problems(StorageConfig.from_env)
    assert "DB_SSL_ROOT_CERT" in message
    assert f"{mode} (DB_SSL_MODE)" in message
    environment(DB_SSL_ROOT_CERT=certificate)
    query = StorageConfig.from_env().postgres.url().query
    assert (query["sslmode"], query["sslrootcert"]) == (mode, certificate)
    # As in libpq, from its own variable or from the home directory.
    environment(DB_SSL_ROOT_CERT="", PGSSLROOTCERT=certificate)
    assert "sslrootcert" not in StorageConfig.from_env().postgres.url().query
    environment(PGSSLROOTCERT="")
    (tmp_path / "home/.postgresql").mkdir(parents=True)
    (tmp_path / "home/.postgresql/root.crt").write_text("certificate")
    assert StorageConfig.from_env().postgres.ssl_mode == mode


def test_root_certificates_of_the_system_need_verify_full(environment: Environment) -> None:
    environment(DB_SSL_ROOT_CERT="system")
    assert "verify-full, not prefer" in problems(StorageConfig.from_env)
    environment(DB_SSL_MODE="verify-full")
    assert StorageConfig.from_env().postgres.url().query["sslrootcert"] == "system"


def test_a_client_certificate_and_its_key_belong_together(
    environment: Environment, certificate: str
) -> None:
    environment(DB_SSL_CERT=certificate)
    message = problems(StorageConfig.from_env)
    assert "DB_SSL_KEY" in message
    assert "(DB_SSL_CERT)" in message
    environment(DB_SSL_CERT="", DB_SSL_KEY=certificate)
    assert "ssl_cert" in problems(StorageConfig.from_env)
    environment(DB_SSL_CERT=certificate)
    query = StorageConfig.from_env().postgres.url().query
    assert (query["sslcert"], query["sslkey"]) == (certificate, certificate)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(certificate: str, mode: int) -> None:
    Path(certificate).chmod(mode)
    message = problems(
        lambda: PostgresConfig(ssl_cert=Path(certificate), ssl_key=Path(certificate))
    )
    assert "postgres.ssl_key" in message
    assert "chmod 600" in message


def test_home_directory_in_a_path_is_expanded(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/root.crt").write_text("certificate")
    config = PostgresConfig(ssl_mode="verify-ca", ssl_root_cert=Path("~/root.crt"))
    assert config.ssl_root_cert == tmp_path / "home/root.crt"
    assert "file that exists" in problems(
        lambda: PostgresConfig(ssl_root_cert=Path("~no-such-user/root.crt"))
    )
