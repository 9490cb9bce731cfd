"""LLM columns of spans: read from the attributes of instrumentations, or written by hand."""

from observatory_storage.llm.extract import Course, Courses, facts
from observatory_storage.llm.extract_columns import facts_by_column
from observatory_storage.llm.llm_span import LlmSpan, columns_of_attributes
from observatory_storage.llm.own_aliases import aliases_of, use_own_aliases

__all__ = [
    "Course",
    "Courses",
    "LlmSpan",
    "aliases_of",
    "columns_of_attributes",
    "facts",
    "facts_by_column",
    "use_own_aliases",
]
