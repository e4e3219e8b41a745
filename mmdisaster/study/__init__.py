"""The experiment step by step, and over and over: trials, variants, comparisons."""
