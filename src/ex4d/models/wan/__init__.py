"""The Wan networks with EX-4D's geometry adapter."""
