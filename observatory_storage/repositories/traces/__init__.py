"""Traces: their filters, searches, spans, sessions, statistics, and their deletion."""
