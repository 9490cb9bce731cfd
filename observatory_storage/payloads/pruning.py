"""Removes the values that no row refers to from stored payload frames."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded, wait_for_commits
from observatory_storage.payloads.frame import DamagedFrame, Frame, Member, Owner
from observatory_storage.payloads.frame_keys import FrameKey
from observatory_storage.payloads.frame_sets import OF_LOGS, OF_SPANS, FrameSet
from observatory_storage.payloads.moved_values import digest_of
from observatory_storage.payloads.stored_frames import (
    StoredFrame,
    frame_row,
    lock_frames,
    note_changed,
    opened,
    references_to,
)

__all__ = ["kept_members", "prune_frames", "referred_values", "rewrite_frame"]

_log = logging.getLogger(__name__)
# So many are in memory at a time.
_FRAMES_AT_ONCE: Final = 200


def referred_values(
    connection: sa.Connection, frames: Iterable[StoredFrame], of: FrameSet = OF_SPANS
) -> dict[FrameKey, dict[Owner, Mapping[str, str]]]:
    """For each frame: the digests of the values in it that rows refer to."""
    if of is OF_LOGS and is_sharded(connection):
        # Records may be on other workers, which commit them after their frames.
        wait_for_commits(connection)
    keys = {name: frame.key for frame in frames for name in frame.names()}
    digests: dict[FrameKey, dict[Owner, Mapping[str, str]]] = {key: {} for key in keys.values()}
    for reference in references_to(connection, keys, of):
        digests[keys[reference.key]][reference.owner] = reference.digests
    return digests


def rewrite_frame(
    connection: sa.Connection, key: FrameKey, members: Iterable[Member], of: FrameSet = OF_SPANS
) -> None:
    """Leave only these members in a frame; without members, delete it."""
    frames = of.table
    this = sa.and_(*(frames.c[name] == value for name, value in key._asdict().items()))
    if kept := list(members):
        row = frame_row(key, kept)
        new = {"value_bytes": row["value_bytes"], "data": row["data"]}
        connection.execute(sa.update(frames).where(this).values(new))
    else:
        connection.execute(sa.delete(frames).where(this))
    note_changed(connection, (key,), lost_values=True)


def prune_frames(
    connection: sa.Connection, keys: Iterable[FrameKey], of: FrameSet = OF_SPANS
) -> None:
    """Remove the values that no row refers to any more from frames, and frames without values.

    Call it in the transaction that replaced or deleted rows of these frames, after that. If the
    rows are spans and events, those of their traces are locked. A damaged frame stays while rows
    refer to it, and is logged.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    waiting = sorted(set(keys))
    for start in range(0, len(waiting), _FRAMES_AT_ONCE):
        stored = lock_frames(connection, waiting[start : start + _FRAMES_AT_ONCE], of)
        digests = referred_values(connection, stored, of)
        for key, *_, data in stored:
            referred = digests[key]
            frame = opened(key, data) if referred else Frame()
            if isinstance(frame, DamagedFrame):
                _log.error("%s", frame)
                continue
            kept = kept_members(frame, referred)
            if not referred or kept != frame.members():
                rewrite_frame(connection, key, kept, of)


def kept_members(frame: Frame, referred: Mapping[Owner, Mapping[str, str]]) -> list[Member]:
    """The members of a frame that rows refer to.

    Args:
        frame: the frame.
        referred: the digests of the values that rows refer to, by owner and key.
    """
    kept = []
    for owner, values in frame.items():
        digests = referred.get(owner, {})
        same = {key: text for key, text in values.items() if digests.get(key) == digest_of(text)}
        if same:
            kept.append(Member(owner, same))
    return kept
