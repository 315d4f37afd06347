"""Camera paths: made, read, written, checked. Pure functions; nothing here renders."""
