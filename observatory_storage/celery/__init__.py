"""The package in Celery applications (extra ``celery``).

Writers need nothing of this to flush when a worker ends; see `writers.process_hooks`.
"""

from observatory_storage.celery.beat_maintenance import add_maintenance
from observatory_storage.celery.task_flush import flush_after_task

__all__ = ["add_maintenance", "flush_after_task"]
