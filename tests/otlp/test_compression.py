"""Compressed requests: all codings of senders, damaged ones, and ones made to fill memory."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from observatory_storage import (
    ConfigError,
    StoragePool,
    ValidationError,
    decompress,
    detect_signal,
    ingest_logs,
)
from observatory_storage.otlp.compression import BodyTooLarge, UnknownCoding, detect_coding
from tests.otlp.samples import log_request

BODY = json.dumps(log_request(body={"stringValue": "told " * 400})).encode()


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def stored_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def in_parts(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As senders that flush write it: several members, or frames, one after the other."""
    return lambda data: compress(data[:70]) + compress(b"") + compress(data[70:])


def with_skippable_frame(data: bytes) -> bytes:
    return b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc" + zstd.compress(data)


CODED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("X-GZip", gzip.compress),
    ("gzip", in_parts(gzip.compress)),
    ("gzip", lambda data: gzip.compress(data) + bytes(512)),
    ("zstd", zstd.compress),
    ("zstd", in_parts(zstd.compress)),
    ("zstd", with_skippable_frame),
    ("deflate", zlib.compress),
    ("zlib", lambda data: zlib.compress(data, 1)),
    ("deflate", raw_deflate),
    ("deflate", stored_deflate),
    ("gzip, zstd", lambda data: zstd.compress(gzip.compress(data))),
    ("identity", bytes),
    ("", bytes),
]


@pytest.mark.parametrize(("coding", "compress"), CODED)
def test_body_is_decompressed(coding: str, compress: Callable[[bytes], bytes]) -> None:
    for body in (BODY, BODY[:70], b"", BODY * 300):
        assert decompress(compress(body), coding) == body


@pytest.mark.parametrize(
    "compress", [gzip.compress, zstd.compress, with_skippable_frame, zlib.compress]
)
def test_compressed_request_is_recognised(
    compress: Callable[[bytes], bytes], pool: StoragePool
) -> None:
    body = compress(BODY)
    assert decompress(body) == BODY
    assert detect_signal(body) == "logs"
    assert ingest_logs(pool, memoryview(body)).accepted == 1


@pytest.mark.parametrize("body", [BODY, b"\n" + BODY, b"", b"x", b"xyz", b"PPPP", b"\n\x0a(\xb5/"])
def test_other_data_is_not_taken_for_compressed(body: bytes) -> None:
    assert detect_coding(body) is None
    assert decompress(body) == body


@pytest.mark.parametrize(("coding", "compress"), [*CODED[:3], *CODED[4:-2]])
def test_damaged_body_is_refused(coding: str, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(BODY)
    cut = [whole[:end] for end in (1, 5, len(whole) // 2, len(whole) - 1)]
    for body in (*cut, whole + b"more", b"\xff\xfe" + whole):
        with pytest.raises(ValidationError, match="cannot be decompressed"):
            decompress(body, coding)


def test_body_that_is_damaged_in_its_outer_coding_is_refused() -> None:
    for codings in ("deflate, gzip", "gzip, deflate", "zstd, deflate", "deflate, zstd"):
        with pytest.raises(ValidationError, match=f"'{codings}': cannot be decompressed"):
            decompress(b"{", codings)


def test_checksum_of_a_body_is_checked() -> None:
    # gzip ends with a checksum and the size, zlib with a checksum.
    for body, place in ((gzip.compress(BODY), -5), (zlib.compress(BODY), -1)):
        wrong = bytearray(body)
        wrong[place] ^= 1
        with pytest.raises(ValidationError, match="cannot be decompressed"):
            decompress(bytes(wrong))


@pytest.mark.parametrize("coding", ["br", "snappy", "lz4", "gzip;q=1", "gzip br"])
def test_unknown_coding_is_refused(coding: str) -> None:
    with pytest.raises(UnknownCoding, match="must be one of gzip, zstd, deflate"):
        decompress(BODY, coding)


@pytest.mark.parametrize(("coding", "compress"), CODED)
def test_bound_is_inclusive(coding: str, compress: Callable[[bytes], bytes]) -> None:
    body = BODY * 300
    compressed = compress(body)
    assert decompress(compressed, coding, max_bytes=len(body)) == body
    for bound in (0, 1, len(body) - 1):
        with pytest.raises(BodyTooLarge, match=f"more than {bound} bytes"):
            decompress(compressed, coding, max_bytes=bound)


@pytest.mark.parametrize(
    ("coding", "compress"), [CODED[0], CODED[4], CODED[7], CODED[9], CODED[11]]
)
def test_bomb_does_not_fill_memory(coding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(50_000_000))
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            decompress(bomb, coding, max_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_error_of_a_large_body_can_be_pickled() -> None:
    error = BodyTooLarge(1000)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_error_for_zstd_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    body = zstd.compress(BODY)
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'observatory-storage\[zstd\]'"):
        decompress(body)
    assert decompress(gzip.compress(BODY)) == BODY
