"""Training samples from plain video."""
