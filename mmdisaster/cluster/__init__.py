"""Work that the workers of a scheduler do."""
