"""An instrumented LLM application whose telemetry is stored and queried; see ``__main__``."""
