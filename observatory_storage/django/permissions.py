"""Whether a request may see what the pages of `urls` tell of the store.

These are the defaults of ``OBSERVATORY_PERMISSION`` and ``OBSERVATORY_HEALTH_PERMISSION``.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["may_view_traces"]

_PERMISSIONS: Final = ("observatory.view_trace", "observatory.view_span")


def may_view_traces(request: Any) -> bool:
    """Whether the user may view traces and their spans in Django's admin, as staff does."""
    user = getattr(request, "user", None)
    return bool(user is not None and user.is_staff and user.has_perms(_PERMISSIONS))
