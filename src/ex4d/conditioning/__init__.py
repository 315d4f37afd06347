"""From rendered colour and mask to what a video diffusion model is conditioned on."""
