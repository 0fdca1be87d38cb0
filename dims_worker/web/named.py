"""Names that a reading keeps, as pages tell them: what is missing, different, or could not be read."""

from __future__ import annotations
