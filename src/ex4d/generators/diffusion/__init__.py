"""What every diffusion generator shares: windows, memory, the Euler loop, observed pixels."""
