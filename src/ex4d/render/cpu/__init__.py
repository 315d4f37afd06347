"""The rasteriser on the CPU."""
