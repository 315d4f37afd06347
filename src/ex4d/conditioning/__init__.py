"""Rendered colour and mask to what a diffusion model is conditioned on."""
