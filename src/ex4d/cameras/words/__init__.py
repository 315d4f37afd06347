"""Camera paths from words."""
