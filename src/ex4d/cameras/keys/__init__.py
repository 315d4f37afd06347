"""Camera paths from keys."""
