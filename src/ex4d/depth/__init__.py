"""Depth for every frame: estimated, or brought by the user."""
