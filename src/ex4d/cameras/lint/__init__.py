"""Mistakes in camera files, named."""
