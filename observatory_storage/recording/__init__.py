"""Recording by hand: log records of `logging` and structlog, and calls to models."""

from observatory_storage.recording.observation import Observation, current_observation
from observatory_storage.recording.observe import observe, observe_llm
from observatory_storage.recording.observed_call import ObservedCall
from observatory_storage.recording.observed_step import ObservedStep
from observatory_storage.recording.observed_stream import AsyncObservedStream, ObservedStream
from observatory_storage.recording.observer import Observer
from observatory_storage.recording.storage_handler import SpanIdsFilter, StorageHandler
from observatory_storage.recording.structlog_processor import StructlogProcessor

__all__ = [
    "AsyncObservedStream",
    "Observation",
    "ObservedCall",
    "ObservedStep",
    "ObservedStream",
    "Observer",
    "SpanIdsFilter",
    "StorageHandler",
    "StructlogProcessor",
    "current_observation",
    "observe",
    "observe_llm",
]
