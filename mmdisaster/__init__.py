"""A multi-label multimodal framework for imbalanced disaster videos, and the audit of its evidence."""

__version__ = "0.2.0"
