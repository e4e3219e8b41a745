"""A fitted framework that scores new clips, as a folder that travels."""
