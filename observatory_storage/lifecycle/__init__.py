"""Keeps the store small, fast and right while rows keep coming: the steps of maintenance."""
