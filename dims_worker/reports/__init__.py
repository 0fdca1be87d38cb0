"""Everything that is known, to be looked at and taken away."""
