"""Descriptions as words, and words as vectors (§III-A)."""
