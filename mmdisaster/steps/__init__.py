"""The experiment step by step: one module per step, which stages, trials and `train` call."""
