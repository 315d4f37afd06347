"""Training samples on disk, and batches of them."""
