"""Depth on disk."""
