"""What a path will cost in unseen pixels, before any completion."""
