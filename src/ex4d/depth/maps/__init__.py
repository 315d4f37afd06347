"""Depth maps made better: aligned, filtered over time, edges cleaned, enlarged."""
