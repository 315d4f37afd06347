"""The source camera's own motion: given, or found from depth and pictures."""
