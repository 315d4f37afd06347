"""Simulated masks: what a new camera would not see, from monocular video alone."""
