"""The rasteriser on NVIDIA GPUs."""
