"""Video on disk."""
