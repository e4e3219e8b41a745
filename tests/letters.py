"""An extractor that needs no network."""

import numpy as np


class Letters:
    """An extractor of descriptions, one step for each letter; "broken …" is broken, "closed" may not be read."""

    modality, dim = "text", 1

    def fingerprint(self):
        return {}

    def key(self, row, root):
        return row["text"]

    def read(self, row, root):
        if row["text"].startswith("broken"):
            raise ValueError("is broken")
        if row["text"] == "closed":
            raise PermissionError(13, "Permission denied", str(root / row["media"]))
        return row["text"]

    def encode(self, inputs):
        return [np.full((len(text), 1), ord(text[0]), np.float32) for text in inputs]
