"""The same application for hosts that ``opentelemetry-instrument`` cannot start, such as uWSGI.

uWSGI needs ``py-call-uwsgi-fork-hooks`` or ``lazy-apps``: OpenTelemetry's SDK starts its threads
anew by ``os.register_at_fork``, whose functions uWSGI calls with that option alone.
"""

from chat import app as application

from observatory_storage.otel import configure

configure(service_name="chat")

__all__ = ["application"]
