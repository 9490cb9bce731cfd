"""Renames and drops attributes by their keys, wherever a row has attributes.

These are the attributes of the item, its resource and its scope, and those of links and exemplars.
What ``otlp`` notes of an attribute follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from observatory_storage.plain_json import key_text

__all__ = ["ATTRIBUTE_COLUMNS", "with_keys"]

# The new key of an attribute, or None to drop it.
NewKey = Callable[[str], str | None]
_Changes = dict[str, str | None]

# The columns of attributes, and where ``otlp`` has the notes of each.
ATTRIBUTE_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "attributes": ("attributes",),
    "resource_attributes": ("resource", "attributes"),
    "scope_attributes": ("scope", "attributes"),
}
# The columns of lists of objects with attributes, and where the note of an object has theirs.
_LISTS: Final[dict[str, tuple[str, ...]]] = {"links": (), "exemplars": ("attributes",)}


def with_keys(row: Mapping[str, Any], new_key: NewKey) -> Mapping[str, Any]:
    """The row with the new keys of its attributes; the same object if none changes.

    If a row has an attribute with the new key already, both attributes stay as they are.
    """
    changed: dict[str, Any] = {}
    notes = row.get("otlp")
    for column, place in ATTRIBUTE_COLUMNS.items():
        changes = _changes(row.get(column), new_key)
        if changes:
            changed[column] = _changed(row[column], changes)
            notes = _with_note(notes, place, changes)
    for column, within in _LISTS.items():
        items = row.get(column)
        if not isinstance(items, (list, tuple)):
            continue
        for index, item in enumerate(items):
            attributes = item.get("attributes") if isinstance(item, Mapping) else None
            changes = _changes(attributes, new_key)
            if changes:
                changed.setdefault(column, list(items))[index] = {
                    **item,
                    "attributes": _changed(attributes, changes),
                }
                notes = _with_note(notes, (column, str(index), *within), changes)
    if not changed:
        return row
    return {**row, **changed, "otlp": notes} if "otlp" in row else {**row, **changed}


def _changes(attributes: Any, new_key: NewKey) -> _Changes:
    """The keys that change, and what they become."""
    changes: _Changes = {}
    if not isinstance(attributes, Mapping):
        return changes
    taken: set[str] = set()
    for key in attributes:
        text = key if type(key) is str else key_text(key)
        new = new_key(text)
        if new == text or (new is not None and (new in attributes or new in taken)):
            continue
        changes[text] = new
        if new is not None:
            taken.add(new)
    return changes


def _changed(attributes: Any, changes: _Changes) -> dict[Any, Any]:
    kept = {}
    for key, value in attributes.items():
        text = key if type(key) is str else key_text(key)
        if text not in changes:
            kept[key] = value
        elif (new := changes[text]) is not None:
            kept[new] = value
    return kept


def _with_note(notes: Any, place: Sequence[str], changes: _Changes) -> Any:
    """What ``otlp`` notes, with the new keys in the note at a place."""
    if not place:
        return _changed_note(notes, changes)
    if not isinstance(notes, Mapping) or place[0] not in notes:
        return notes
    return {**notes, place[0]: _with_note(notes[place[0]], place[1:], changes)}


def _changed_note(note: Any, changes: _Changes) -> Any:
    if isinstance(note, Mapping):
        return _changed(note, changes)
    if not isinstance(note, list):
        return note
    entries = []
    for entry in note:  # all pairs of attributes that have a key twice
        key = changes.get(entry["key"], entry["key"])
        if key is not None:
            entries.append({**entry, "key": key})
    return entries
