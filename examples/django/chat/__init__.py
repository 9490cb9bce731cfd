"""A small chat application that answers from a few sentences, and records how it did so."""
