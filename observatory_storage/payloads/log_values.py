"""Moves large values out of the attributes and bodies of log records, and puts them back.

In a frame, the name of a value begins with its column: ``attributes.app.prompt``,
``body_json.content``. A body that is a list moves as a whole, as ``body_json.``, and leaves its
preview. The digests of a record are an object of each column, so that those of attributes can be
compared as those of a span.

A text body stays in its row, since the index of words reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Raw
from msgspec.json import Decoder, Encoder

from observatory_storage.payloads.moved_values import Moved, move_large, put_back, put_back_text

__all__ = [
    "LOG_COLUMNS",
    "MovedColumns",
    "flat_digests",
    "move_from_log",
    "put_back_in_log",
    "put_back_log_text",
    "whole_columns",
]

LOG_COLUMNS: Final = ("attributes", "body_json")
"""The columns of a log record whose values move."""
_VERSION: Final = b"\x01"  # of jsonb's binary format, see `jsonb`
_WHOLE: Final = ""
_raw: Final = Decoder(dict[str, Raw])
_encode: Final = Encoder().encode


class MovedColumns(NamedTuple):
    """The columns of a row without its large values.

    Attributes:
        columns: those whose values move, in the binary format of jsonb, with previews.
        values: the JSON text of each moved value, by its name in the frame.
        digests: the digests of the values, in the binary format of jsonb.
    """

    columns: tuple[bytes | None, ...]
    values: dict[str, bytes]
    digests: bytes


def move_from_log(
    attributes: bytes,
    body_json: bytes | None,
    threshold: int,
    stays: Callable[[str], bool],
) -> MovedColumns | None:
    """Move the largest values out, until neither column is larger than the threshold, in bytes.

    Args:
        attributes, body_json: in the binary format of jsonb.
        threshold: the most bytes that shall be left in each.
        stays: whether the attribute of a name stays in the row.

    Returns:
        None if no value has to be moved, or none is large enough.
    """
    moved = {
        "attributes": move_large(attributes, threshold, stays=stays),
        "body_json": None if body_json is None else _from_body(body_json, threshold),
    }
    found = {column: one for column, one in moved.items() if one is not None}
    if not found:
        return None
    digests = {column: Raw(one.digests[1:]) for column, one in found.items()}
    return MovedColumns(
        (
            found["attributes"].attributes if "attributes" in found else attributes,
            found["body_json"].attributes if "body_json" in found else body_json,
        ),
        {
            f"{column}.{key}": value
            for column, one in found.items()
            for key, value in one.values.items()
        },
        _VERSION + _encode(digests),
    )


def _from_body(body: bytes, threshold: int) -> Moved | None:
    if len(body) <= threshold:
        return None
    if body[1:2] == b"{":
        return move_large(body, threshold)
    whole = move_large(_VERSION + b'{"":' + body[1:] + b"}", 0)
    if whole is None:
        return None
    return whole._replace(attributes=_VERSION + bytes(_raw.decode(whole.attributes[1:])[_WHOLE]))


def flat_digests(digests: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The digests of a record by the names of its values in the frame."""
    return {
        f"{column}.{key}": digest
        for column, of_column in digests.items()
        for key, digest in of_column.items()
    }


def put_back_in_log(row: Mapping[str, Any], values: Mapping[str, bytes]) -> dict[str, Any]:
    """`LOG_COLUMNS` of a record with their whole values instead of previews.

    What has been set since to something else than its preview stays as it is. A column that the row
    does not have is left out.
    """
    found = {}
    for column, of_column in _by_column(values).items():
        if column not in row:
            continue
        if _WHOLE in of_column and isinstance(row[column], str):
            found[column] = put_back({_WHOLE: row[column]}, of_column)[_WHOLE]
        elif isinstance(row[column], Mapping):
            found[column] = put_back(row[column], of_column)
    return found


def put_back_log_text(column: str, text: bytes, values: Mapping[str, bytes]) -> bytes:
    """As `put_back_in_log`, of a column as JSON text: what is not put back stays as written."""
    of_column = _by_column(values).get(column, {})
    if not of_column:
        return text
    if text[:1] == b"{":
        return put_back_text(text, of_column)
    wrapped = put_back_text(b'{"":' + text + b"}", of_column)
    return bytes(_raw.decode(wrapped)[_WHOLE])


def whole_columns(
    attributes: str, body_json: str | None, values: Mapping[str, bytes]
) -> tuple[bytes, bytes | None]:
    """The JSON text of both columns with their whole values."""
    body = None if body_json is None else put_back_log_text("body_json", body_json.encode(), values)
    return put_back_log_text("attributes", attributes.encode(), values), body


def _by_column(values: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for name, value in values.items():
        column, _, key = name.partition(".")
        found.setdefault(column, {})[key] = value
    return found
