"""Completion without a network."""
