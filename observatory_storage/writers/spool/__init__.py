"""Files that hold prepared rows while the database is away."""
