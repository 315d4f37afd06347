"""Completion by the embedded model."""
