"""Sends a question to the worker, and prints the answer: ``python ask.py What is a span?``."""

from __future__ import annotations

import sys

from tasks import answer, writer

from observatory_storage import observe

with observe(writer, name="ask", service_name="chat") as step:
    headers = {"traceparent": step.traceparent}
    result = answer.apply_async([" ".join(sys.argv[1:])], headers=headers).get(timeout=60)

print(result["answer"])
print(f"observatory-storage trace {step.trace_id}")
