"""Shared by the three repositories: the session, pages and cursors, filters, validation."""
