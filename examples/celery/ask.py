"""Sends a question to the worker, and prints the answer: ``python ask.py What is a span?``."""

from __future__ import annotations

import sys

from tasks import answer

result = answer.delay(" ".join(sys.argv[1:])).get(timeout=60)
print(result["answer"])
print(f"observatory-storage trace {result['trace_id']}")
