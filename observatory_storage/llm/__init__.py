"""What a span says of a call to a language model: read from others' spans, or written by hand."""

from observatory_storage.llm.extract import facts
from observatory_storage.llm.span import LlmSpan
from observatory_storage.llm.together import facts_together

__all__ = ["LlmSpan", "facts", "facts_together"]
