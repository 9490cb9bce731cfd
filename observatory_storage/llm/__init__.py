"""LLM columns of spans: read from the attributes of instrumentations, or written by hand."""

from observatory_storage.llm.extract import facts
from observatory_storage.llm.extract_columns import facts_by_column
from observatory_storage.llm.llm_span import LlmSpan, columns_of_attributes

__all__ = ["LlmSpan", "columns_of_attributes", "facts", "facts_by_column"]
