"""WSGI applications to mount in an application of one's own, and the server of the command line."""

from observatory_storage.web.authorization import Authorize, bearer_token
from observatory_storage.web.otlp_app import otlp_app

__all__ = ["Authorize", "bearer_token", "otlp_app"]
