"""Training pairs from plain video, and the trainer of the adapter."""
