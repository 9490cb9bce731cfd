"""LLM columns of spans: read from the attributes of instrumentations, or written by hand."""

from observatory_storage.llm.extract import facts
from observatory_storage.llm.extract_columns import facts_by_column
from observatory_storage.llm.llm_span import LlmSpan

__all__ = ["LlmSpan", "facts", "facts_by_column"]
