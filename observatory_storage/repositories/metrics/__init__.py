"""Metrics: definitions, data points, time series, and the cost and latency of spans."""
