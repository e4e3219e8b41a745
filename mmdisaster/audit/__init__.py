"""The printed evidence examined, and what the paper leaves open."""
