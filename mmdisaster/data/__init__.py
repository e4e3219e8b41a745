"""Clips as tables: manifest, labels, split, inspection, sequences of features."""
