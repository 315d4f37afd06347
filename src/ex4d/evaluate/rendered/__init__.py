"""Scores against rendered truth."""
