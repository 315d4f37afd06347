"""Faster forms of the Wan blocks: fused kernels, float8, streaming, several GPUs."""
