"""Frames and sound as static features (§III-A)."""
