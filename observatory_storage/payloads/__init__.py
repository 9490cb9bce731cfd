"""Large values of attributes, which are stored compressed and together, beside their rows."""

from observatory_storage.payloads.frame import DamagedFrame, Frame, Member, Owner, pack, unpack
from observatory_storage.payloads.moved_values import (
    MOVABLE_BYTES,
    PREVIEW_CHARACTERS,
    Moved,
    digest_of,
    move_large,
    preview_of,
    put_back,
)

__all__ = [
    "MOVABLE_BYTES",
    "PREVIEW_CHARACTERS",
    "DamagedFrame",
    "Frame",
    "Member",
    "Moved",
    "Owner",
    "digest_of",
    "move_large",
    "pack",
    "preview_of",
    "put_back",
    "unpack",
]
