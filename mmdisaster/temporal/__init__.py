"""Temporal features by a residual bidirectional LSTM (§III-B)."""
