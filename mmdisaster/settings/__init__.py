"""Every knob of the experiment: types, ranges, defaults and sources."""

from .reading import SettingsError, read_settings
from .tree import Settings

__all__ = ["Settings", "SettingsError", "read_settings"]
