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
from observatory_storage.payloads.stored_frames import (
    FrameKey,
    Reference,
    frame_row,
    hour_of,
    insert_frames,
    new_frame_id,
    opened,
    owner_of,
    prune_frames,
    read_frames,
    references_to,
    rewrite_frame,
)

__all__ = [
    "MOVABLE_BYTES",
    "PREVIEW_CHARACTERS",
    "DamagedFrame",
    "Frame",
    "FrameKey",
    "Member",
    "Moved",
    "Owner",
    "Reference",
    "digest_of",
    "frame_row",
    "hour_of",
    "insert_frames",
    "move_large",
    "new_frame_id",
    "opened",
    "owner_of",
    "pack",
    "preview_of",
    "prune_frames",
    "put_back",
    "read_frames",
    "references_to",
    "rewrite_frame",
    "unpack",
]
