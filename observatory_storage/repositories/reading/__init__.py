"""What the three repositories share: the session, pages and cursors, filters, validation."""
