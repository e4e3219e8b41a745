"""The embedded corpus: simulated clips, and openly said to be."""
