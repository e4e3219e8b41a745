"""Metrics, and the baselines of Table II (§IV)."""
