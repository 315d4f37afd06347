"""Completion by EX-4D on Wan2.1-I2V-14B."""
