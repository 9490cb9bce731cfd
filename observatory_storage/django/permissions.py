"""Whether a request may see the pages of `urls`: the hook that ``OBSERVATORY_PERMISSION`` names."""

from __future__ import annotations

from typing import Any

__all__ = ["is_staff"]


def is_staff(request: Any) -> bool:
    """Whether an active member of the staff has logged in, as for Django's admin."""
    user = getattr(request, "user", None)
    return bool(user is not None and user.is_active and user.is_staff)
