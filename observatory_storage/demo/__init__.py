"""An instrumented LLM application, and what its telemetry answers: see ``__main__``."""
