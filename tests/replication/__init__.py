"""Tests on a primary and a standby that streams from it."""
