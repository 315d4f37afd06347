"""Complete what was never seen: a classical fill, and EX-4D on Wan2.1."""
