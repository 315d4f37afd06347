"""Procedural scenes with true depth and cameras."""
