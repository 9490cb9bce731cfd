"""Log records: filters, full-text search, counts, and a tail."""
