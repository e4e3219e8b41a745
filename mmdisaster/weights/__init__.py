"""Weights that others published: download, check, convert."""
