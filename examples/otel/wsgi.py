"""The same application for hosts that ``opentelemetry-instrument`` cannot start, such as uWSGI.

uWSGI needs ``py-call-uwsgi-fork-hooks`` or ``lazy-apps``, for the threads of OpenTelemetry's SDK.
"""

from chat import app as application

from observatory_storage.otel import configure

configure(service_name="chat")

__all__ = ["application"]
