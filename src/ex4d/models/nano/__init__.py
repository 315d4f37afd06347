"""The networks of the embedded model."""
