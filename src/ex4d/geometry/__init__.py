"""Frames of reference, the pinhole camera and similarity fits: pure functions of arrays."""
